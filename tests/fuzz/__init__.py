"""Mutated inputs of every kind, each tried in a process of its own: python -m tests.fuzz 10000

models.py     small models to damage, written once
mutate.py     what is done to bytes, JSON, text and safetensors
cases.py      one function for each kind of input: what is mutated, and what then must not go wrong
process.py    a case in a forked process, with limits of time and memory, and what became of it
parsers.py    the parsers alone, guided by coverage (atheris)"""
