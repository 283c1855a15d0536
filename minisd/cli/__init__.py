"""The command line.

main.py       the commands, and what ends them
options.py    what each takes
paint.py      the commands that make pictures, from options to files
repeat.py     an image made again from the settings stored in it"""
