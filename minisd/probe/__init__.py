"""Looking inside.  None of this is needed to make a picture.

describe.py    what a checkpoint is, down to every weight (minisd inspect)
profile.py     where the time goes, by operation
preview.py     what the picture is to be, after each step
selftest.py    whether every operation is right on this machine"""
