"""Looking inside.  None of this is needed to make a picture.

describe.py    what a checkpoint is, down to every weight (minisd inspect)
profile.py     where the time goes, by operation
preview.py     what the picture is to be, after each step
explain.py     how one picture came to be (minisd explain)
page.py        that as one HTML file, with page.html, page.css and page.js
watched.py     a model that tells what it computes: below explain.py
attention.py   where it looks for each token;  features.py  a layer's output as a picture
record.py      what every layer must give, written for tests of other engines
compare.py     which layer of another engine is wrong, and by what mistake
calls.py       one call of each network, every layer seen or replaced: below both of them
walk.py        a whole run as one such call
mistakes.py    what porters get wrong, each as it would have computed
activations.py the arrays that another engine wrote
selftest.py    whether every operation is right on this machine"""
