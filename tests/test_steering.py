"""Laws of commands to a training: what they may be, how they travel and are numbered, and that no store's failure reaches the training."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

import netlapse
from netlapse.penalties import Penalties
from netlapse.steering import inbox, sending
from netlapse.steering.boxes import Box, FolderBox, box_at
from netlapse.steering.commands import PLAIN, parse
from netlapse.steering.inbox import Inbox
from netlapse.steering.orders import LARGEST, TAKEN, TYPED, Answer, Book, Order, next_sequence, now, read_answers
from netlapse.steering.sending import send
from netlapse.tracking.folder import FolderTracker
from netlapse.tracking.mlflow import MlflowTracker
from netlapse.tracking.tags import TagBox
from tests.servers import MlflowServer, mlflow_server, proxy
from tests.steered import put, until

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(sending, "ASK_SECONDS", 0.01)


@pytest.fixture
def box(tmp_path: Path) -> FolderBox:
    return FolderBox(tmp_path)


# ---- the words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("pause", "pause", None), (" stop ", "stop", None), ("lr=0.01", "lr", 0.01), ("lr = 1e-3", "lr", 1e-3), ("lr=.5", "lr", 0.5),
        ("weight_decay=0", "weight_decay", 0.0), ("class_weight.3=2.0", "class_weight.3", 2.0), ("penalise.3->5=2", "penalise.3->5", 2.0),
    ],
)  # fmt: skip
def test_a_command_is_a_word_or_a_setting_and_its_number(text: str, name: str, value: float | None) -> None:
    command = parse(text)
    assert (command.name, command.value) == (name, value)
    assert command.name in PLAIN or command.value is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("halt", r"no command 'halt'; commands are pause, resume, stop, .*lr=<number>"),
        ("", "no command ''"),
        ("Pause", "no command 'Pause'"),
        ("pause=1", "pause takes no number, and was given '1'"),
        ("lr", "no command 'lr' without a number, as in lr=0.01"),
        ("penalise.3-", r"in a shell it needs quotes: 'penalise.3->5=2.0'"),
        ("lr=0", "lr was given '0'; expected a finite number above 0"),
        ("lr=-1e-3", "lr was given '-1e-3'"),
        ("lr=inf", "lr was given 'inf'"),
        ("lr=nan", "lr was given 'nan'"),
        ("lr=1_0", "lr was given '1_0'"),
        ("lr=0.1=2", "lr was given '0.1=2'"),
        ("lr=", "lr was given ''"),
        ("lr=1e999", "lr was given '1e999'"),
        ("weight_decay=-1", "weight_decay was given '-1'; expected a finite number of at least 0"),
        ("class_weight.x=1", "nothing named 'class_weight.x' can be set; commands are"),
        ("class_weight.3=-2", "class_weight.3 was given '-2'"),
        ("lr=0.1" + " " * 300, "at most 200 characters"),
    ],
)  # fmt: skip
def test_what_is_no_command_is_told_what_is(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


def test_penalties_take_every_name_that_a_command_may_set() -> None:
    penalties = Penalties(4)
    for text in ("class_weight.3=2", "penalise.0->2=3"):
        command = parse(text)
        assert command.value is not None
        penalties.set(command.name, command.value)
    assert penalties.version == 2


# ---- numbers --------------------------------------------------------------------------------------------------------


def entries_of(*orders: Order) -> dict[str, str]:
    return {key: text for order in orders for key, text in order.entry.items()}


def order(sequence: int, text: str = "pause", *, id: str = "aaaaaaaa", run: str = "here", sent: str = "2026-01-01T00:00:00.000+00:00") -> Order:
    return Order(sequence, text, run, sent, "somebody", id)


def test_an_order_is_read_as_it_was_written() -> None:
    sent = order(7, "penalise.3->5=2.0")
    ((key, value),) = sent.entry.items()
    assert Order.read(key, value) == sent
    assert Order.read(TYPED, "pause") is None


def test_orders_are_taken_once_and_by_their_numbers() -> None:
    book = Book("here")
    entries = entries_of(order(2, "resume", id="00000002"), order(1, id="00000009"), order(10, "stop", id="00000001"))
    assert [(found.sequence, found.text, found.problem) for found in book.arrived(entries)] == [
        (1, "pause", None), (2, "resume", None), (10, "stop", None),
    ]  # fmt: skip
    assert book.arrived(entries) == []


@pytest.mark.parametrize("sequence", [1, 4, 5])
def test_a_number_that_is_not_above_the_last_one_is_a_replay(sequence: int) -> None:
    book = Book("here")
    book.arrived(entries_of(order(5)))
    (found,) = book.arrived(entries_of(order(5), order(sequence, id="bbbbbbbb")))
    assert found.problem == f"{TAKEN}: number {sequence} is not above 5, the last one's"
    assert book.sequence == 5


def test_of_two_with_one_number_the_first_sent_is_taken() -> None:
    first, second = order(3, "lr=1", id="bbbbbbbb", sent="2026-01-01T00:00:01+00:00"), order(3, "lr=2", sent="2026-01-01T00:00:02+00:00")
    taken, refused = Book("here").arrived(entries_of(second, first))
    assert (taken.text, taken.problem, refused.text) == ("lr=1", None, "lr=2")
    assert refused.problem is not None


def test_an_order_for_another_run_is_none_of_ours_and_takes_no_number() -> None:
    book = Book("here")
    (found,) = book.arrived(entries_of(order(8, run="there")))
    assert found.problem == "it is for run there, and this is here"
    assert book.sequence == 0


@pytest.mark.parametrize("value", ["", "pause", "[]", "{}", '{"run": "here"}', "\x00", '{"run": "here", "command": "pause", "sent": "now"}'])
def test_an_entry_that_is_no_order_is_told_what_one_is(value: str) -> None:
    (found,) = Book("here").arrived({f"{TYPED}.1-aaaaaaaa": value})
    assert found.problem is not None
    assert "expected a JSON object with run, command, sent and by" in found.problem


def test_what_is_typed_by_hand_is_taken_once_until_it_is_changed_or_taken_away() -> None:
    book = Book("here")
    book.arrived(entries_of(order(4)))
    told = [book.arrived({TYPED: text} if text else {}) for text in ("pause", "pause", " pause ", "pause #2", "pause 3", "", "pause", "lr= 2")]
    assert [[(found.sequence, found.command.name) for found in orders] for orders in told] == [
        [(5, "pause")], [], [], [(6, "pause")], [(7, "pause")], [], [(8, "pause")], [(9, "lr")],
    ]  # fmt: skip


def answer_to(taken: Order, message: str = "done so") -> Answer:
    return Answer(taken.sequence, taken.text, "done", message, 12, 3, taken.sent, now(), taken.by, taken.id)


def test_a_training_that_goes_on_knows_what_was_taken_before() -> None:
    before, entries = Book("here"), entries_of(order(5)) | {TYPED: "pause"}
    for taken in before.arrived(entries):
        before.answered(answer_to(taken))
    after = Book("here")
    assert after.open(entries | before.entries) == [order(5).key]  # answered, and yet to be cleared away
    assert after.arrived(entries | before.entries) == []
    assert after.sequence == before.sequence == 6
    (replayed,) = after.arrived(entries | before.entries | entries_of(order(6, id="cccccccc")))
    assert replayed.problem is not None
    assert next_sequence(before.entries | entries_of(order(9, id="dddddddd"))) == 10


def test_answers_fit_into_a_tag_of_any_store_and_the_newest_are_kept() -> None:
    book = Book("here")
    for sequence in range(1, 60):
        book.answered(answer_to(order(sequence, id=f"{sequence:08x}"), "x" * 400))
    assert all(len(text) <= LARGEST for text in book.entries.values())
    kept = [answer.sequence for answer in read_answers(book.entries).answers]
    assert len(kept) > 5
    assert kept == list(range(59, 59 - len(kept), -1))


@pytest.mark.parametrize("value", ["", "null", "[]", '{"state": "over"}', '{"state": "x", "sequence": "?", "typed": null, "answers": []}'])
def test_answers_that_somebody_else_wrote_are_as_none(value: str) -> None:
    assert read_answers({"netlapse.answers": value}).state is None


# ---- a thread beside the training -----------------------------------------------------------------------------------


class Listening:
    """A training that does nothing but take what it is told, one after another, as soon as it arrives."""

    def __init__(self, box: Box) -> None:
        self.inbox, self.taken, self._over = Inbox(box), list[Order](), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._over.is_set():
            self.inbox.wait(0.01)
            while self.inbox.orders:
                taken = self.inbox.orders.popleft()
                self.taken.append(taken)
                answer = answer_to(taken, taken.problem or "done so")
                self.inbox.answer(taken, answer if taken.problem is None else refused(answer), "training")

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.inbox.close()


def refused(answer: Answer) -> Answer:
    return replace(answer, state="refused")


@pytest.fixture
def training(box: FolderBox) -> Iterator[Listening]:
    listening = Listening(box)
    until(lambda: read_answers(box.read()).state == "training", "a training that listens")
    yield listening
    listening.close()


def test_of_commands_that_several_send_at_once_none_is_lost_and_each_is_answered(box: FolderBox, training: Listening) -> None:
    texts, answers = [f"lr={number}" for number in range(1, 25)], dict[str, Answer | None]()

    def person(own: list[str]) -> None:
        for text in own:
            answers[text] = send(FolderBox(box.address), text)

    people = [threading.Thread(target=person, args=(texts[start::6],)) for start in range(6)]
    for each in people:
        each.start()
    for each in people:
        each.join()
    done = [taken for taken in training.taken if taken.problem is None]
    assert sorted(taken.text for taken in done) == sorted(texts)
    numbers = [taken.sequence for taken in done]
    assert numbers == sorted(set(numbers))
    assert all(answers[text] is not None and answers[text].state == "done" for text in texts)  # type: ignore[union-attr]
    until(lambda: not [key for key in box.read() if key.startswith(f"{TYPED}.")], "the clearing away of what was answered")


def test_without_waiting_commands_sent_one_after_another_all_arrive_in_their_order(box: FolderBox, training: Listening) -> None:
    for number in range(1, 9):
        assert send(box, f"lr={number}", seconds=None) is None
    until(lambda: len(training.taken) == 8, "eight commands")
    assert [taken.text for taken in training.taken] == [f"lr={number}" for number in range(1, 9)]


def test_nothing_is_sent_where_nobody_listens_or_it_is_no_command(box: FolderBox) -> None:
    with pytest.raises(ValueError, match=r"no training listens to it; train with a SteeringCallback"):
        send(box, "pause")
    listening = Listening(box)
    until(lambda: read_answers(box.read()).state == "training", "a training that listens")
    with pytest.raises(ValueError, match="no command 'halt'"):
        send(box, "halt")
    listening.close()
    with pytest.raises(ValueError, match="its training is over"):
        send(box, "pause")
    assert not [key for key in box.read() if key.startswith(TYPED)]


def test_a_command_that_the_training_did_not_come_to_is_told_of_and_taken_away(box: FolderBox) -> None:
    listening = Inbox(box)
    until(lambda: read_answers(box.read()).state == "training", "a training that listens")
    with pytest.raises(TimeoutError, match=r"did not answer 'pause' \(number 1\) within 0.1 s.* the command stays"):
        send(box, "pause", seconds=0.1)
    told = len(box.read())

    def end_once_it_is_sent() -> None:
        until(lambda: len(box.read()) > told, "the arrival of a command")
        listening.close()

    threading.Thread(target=end_once_it_is_sent, daemon=True).start()
    with pytest.raises(ValueError, match="did not take 'stop': its training ended meanwhile"):
        send(box, "stop")
    assert len([key for key in box.read() if key.startswith(TYPED)]) == 1


class Failing:
    """A box that fails as often as it is told to, and counts how often it is looked into."""

    address = run = "here"

    def __init__(self, failures: int) -> None:
        self.failures, self.looks, self.entries = failures, 0, dict[str, str]()

    def read(self) -> dict[str, str]:
        self.looks += 1
        self._fail()
        return dict(self.entries)

    def write(self, entries: Mapping[str, str]) -> None:
        self._fail()
        self.entries.update(entries)

    def delete(self, key: str) -> None:
        self.entries.pop(key, None)

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("no answer from http://user:secret@server/")


def test_a_store_that_fails_is_said_once_without_secrets_and_what_waits_is_taken_when_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(3)
    failing.entries |= entries_of(order(1))
    with caplog.at_level(logging.WARNING):
        listening = Listening(failing)
        until(lambda: read_answers(failing.entries).answers, "an answer")
        failing.failures = 2
        failing.entries |= entries_of(order(2, "stop", id="bbbbbbbb"))
        until(lambda: len(read_answers(failing.entries).answers) == 2, "another answer")
        listening.close()
    assert [taken.text for taken in listening.taken] == ["pause", "stop"]
    (said,) = [record.message for record in caplog.records]
    assert said == "netlapse: no commands can be taken for now, and training goes on: ConnectionError: no answer from http://server/"


def test_a_box_is_looked_into_no_more_often_than_every_so_many_seconds_whatever_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "POLL_SECONDS", 3600.0)
    box = Failing(0)
    listening = Inbox(box)
    until(lambda: read_answers(box.entries).state == "training", "a training that listens")
    for number in range(1, 6):
        listening.answer(order(number, id=f"{number:08x}"), answer_to(order(number, id=f"{number:08x}")), "training")
        until(lambda number=number: len(read_answers(box.entries).answers) == number, "an answer")  # type: ignore[misc]
    assert box.looks == 1
    listening.close()
    assert read_answers(box.entries).state == "over"


def test_a_folders_entries_are_files_and_nothing_else_is_touched(tmp_path: Path) -> None:
    box = FolderBox(tmp_path)
    for key in ("netlapse.command.1-../../x", "netlapse.../x", "mlflow.note", "netlapse.command.1-AAAAAAAA"):
        with pytest.raises(ValueError, match="is no entry of commands or answers"):
            box.write({key: "x"})
    (tmp_path / "steering").mkdir()
    (tmp_path / "steering" / "command").write_text("pause\n")
    (tmp_path / "steering" / ".command.77").write_text("half written")
    assert box.read() == {TYPED: "pause\n"}


def test_what_is_neither_a_run_nor_a_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no record of netlapse: it holds no manifest\.json"):
        box_at(str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        box_at(str(tmp_path / "nowhere"))


# ---- stores of MLflow -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as started:
        yield started


def run_at(uri: str) -> str:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("steered") or client.get_experiment(client.create_experiment("steered"))
    return str(client.create_run(experiment.experiment_id).info.run_id)


def test_the_same_through_the_tags_of_a_server_or_a_database(server: MlflowServer, tmp_path: Path) -> None:
    for uri in (server.uri, f"sqlite:///{tmp_path}/own.db"):
        run = run_at(uri)
        box = TagBox(run, uri)
        MlflowClient(uri).set_tag(run, "mine", "pause")
        box.write({TYPED: "pause", "netlapse.answer": "0"})
        box.write({"netlapse.answer": "1"})
        assert box.read() == {TYPED: "pause", "netlapse.answer": "1"}
        box.delete(TYPED)
        box.delete(TYPED)  # gone already
        assert box.read() == {"netlapse.answer": "1"}
        assert MlflowClient(uri).get_run(run).data.tags["mine"] == "pause"


def test_commands_come_through_a_server_that_hangs_for_a_while(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlapse.tracking.store.ANSWER_SECONDS", 0.3)
    run = run_at(server.uri)
    with proxy(server.uri) as between:
        listening = Listening(TagBox(run, between.uri))
        direct = TagBox(run, server.uri)
        until(lambda: read_answers(direct.read()).state == "training", "a training that listens")
        for behaviour in ("hang", "refuse"):
            between.behaviour = behaviour  # type: ignore[assignment]
            calls = len(between.calls)
            put(direct, f"lr={calls}")
            until(lambda calls=calls: len(between.calls) > calls + 1, "a call that is not answered")  # type: ignore[misc]
            assert [taken.text for taken in listening.taken if taken.text == f"lr={calls}"] == []
            between.behaviour = "pass"
            until(lambda calls=calls: [a for a in read_answers(direct.read()).answers if a.command == f"lr={calls}"], "an answer")  # type: ignore[misc]
        between.behaviour = "hang"
        began = time.monotonic()
        listening.close()
        assert time.monotonic() - began < inbox.CLOSE_SECONDS + 5
    assert len(listening.taken) == 2


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netlapse.tracking.steer", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def test_the_shell_sends_and_prints_what_is_answered(server: MlflowServer) -> None:
    tracker = MlflowTracker(uri=server.uri)
    listening = Listening(TagBox(tracker.run_id, server.uri))
    until(lambda: read_answers(TagBox(tracker.run_id, server.uri).read()).state == "training", "a training that listens")
    result = shell(f"run={tracker.run_id}", "lr=0.01", "penalise.3->5=2.0", MLFLOW_TRACKING_URI=server.uri)
    assert (result.returncode, result.stdout) == (
        0,
        "#1 lr=0.01: done at step 12, epoch 3: done so\n#2 penalise.3->5=2.0: done at step 12, epoch 3: done so\n",
    )
    answer = netlapse.steer(tracker.run_id, "stop", server.uri)
    assert answer is not None
    assert (answer.sequence, answer.state) == (3, "done")
    assert netlapse.steer(tracker.run_id, "pause", server.uri, wait=None) is None
    until(lambda: len(listening.taken) == 4, "a command that nobody waits for")
    listening.close()
    tracker.finish()
    result = shell(f"run={tracker.run_id}", "pause", MLFLOW_TRACKING_URI=server.uri)
    assert (result.returncode, "its training is over" in result.stderr) == (1, True)


def test_the_shell_refuses_what_is_no_command_before_anybody_is_asked(tmp_path: Path) -> None:
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    result = shell("run=abc", "halt", **nobody)
    assert (result.returncode, "netlapse: no command 'halt'; commands are pause" in result.stderr) == (2, True)
    for words in (["pause"], ["run=abc"], ["run=abc", "wait=-1", "pause"]):
        result = shell(*words, **nobody)
        assert (result.returncode, "usage: ./run steer run=" in result.stderr or "could not convert" in result.stderr) == (2, True)
    result = shell("run=abc", "pause", **nobody)
    assert (result.returncode, "no MLflow server answers at http://127.0.0.1:9" in result.stderr) == (1, True)


def test_a_folder_is_steered_as_a_run_is_though_a_server_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FolderTracker(tmp_path).start({})
    listening = Listening(FolderBox(tmp_path))
    until(lambda: read_answers(FolderBox(tmp_path).read()).state == "training", "a training that listens")
    result = shell(f"run={tmp_path}", "lr=0.01", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert (result.returncode, result.stdout) == (0, "#1 lr=0.01: done at step 12, epoch 3: done so\n"), result.stderr
    listening.close()


def test_who_sent_it_and_when_is_in_the_answer(box: FolderBox, training: Listening) -> None:
    before = now()
    answer = send(box, "pause")
    assert answer is not None
    assert before <= answer.sent <= answer.taken
    assert "@" in answer.by
    assert json.loads(box.read()["netlapse.answers"])["answers"][0]["by"] == answer.by


def test_the_docs_name_all_commands_and_their_blocks_run(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import re
    import shlex

    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from netlapse.models.torch import cnn
    from netlapse.training.lightning import Classifier

    text = (ROOT / "docs" / "steering.md").read_text()
    assert all(f"| `{word}` |" in text for word in PLAIN)
    by_hand, script = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    commands = [shlex.split(line) for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]
    tracker = MlflowTracker()
    listening = Listening(TagBox(tracker.run_id))
    until(lambda: read_answers(TagBox(tracker.run_id).read()).state == "training", "a training that listens")
    exec(by_hand, {"run_id": tracker.run_id})
    for _, _, run, *words in commands:
        result = shell(run.replace("$RUN", tracker.run_id), *words)
        assert result.returncode == 0, result.stderr
    assert [taken.text for taken in listening.taken] == ["lr=0.002", *(word for _, _, _, *words in commands for word in words)]
    listening.close()
    tracker.finish()
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    monkeypatch.setattr(pl, "Trainer", partial(pl.Trainer, **quiet))
    exec(script, {"x": x, "y": y, "model": Classifier(cnn((8, 8, 1), 3, channels=(4,), hidden=8)), "loader": DataLoader(TensorDataset(x, y), 4)})
    client = MlflowClient(f"sqlite:///{own_place / 'mlflow.db'}")
    last = client.search_runs(["1"], order_by=["attributes.start_time DESC"])[0]
    assert json.loads(last.data.tags["netlapse.answers"])["state"] == "over"


def test_an_sqlite_file_is_asked_only_where_it_was_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowTracker()
    tracker.start({})
    box, other, asked = TagBox(tracker.run_id), TagBox(tracker.run_id), []
    get_run = box._client.get_run  # type: ignore[union-attr]
    monkeypatch.setattr(box._client, "get_run", lambda run: asked.append(run) or get_run(run))
    monkeypatch.setattr("netlapse.tracking.tags._SETTLED", 0.2)
    time.sleep(0.3)
    first = box.read()
    assert [box.read() for _ in range(3)] == [first] * 3
    assert len(asked) == 1
    first["netlapse.command"] = "what a reader does with it is nobody else's"
    for number in range(3):  # written at any moment after a look, it is seen at the next
        other.write({"netlapse.command": f"lr={number + 1}"})
        assert box.read()["netlapse.command"] == f"lr={number + 1}"
    time.sleep(0.3)
    assert box.read()["netlapse.command"] == "lr=3"
    assert box.read()["netlapse.command"] == "lr=3"
    assert len(asked) == 5
    tracker.finish()
