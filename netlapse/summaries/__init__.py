"""What a sweep ends in: each function here is called with the parent's tracker and the `netlapse.sweep.Sweep`, and puts a part of the answer there.

No network and no framework is asked, only what the runs recorded. A sweep of one run, or of runs that recorded nothing, ends without.
"""
