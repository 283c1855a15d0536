"""The command line.

main.py       the commands, and what ends them
options.py    what each takes
paint.py      the commands that make pictures, from options to files
many.py       batch: from a table to a folder of pictures
terminal.py   standard output and error, whatever is behind them
signals.py    Ctrl-C and SIGTERM, whatever they interrupt
repeat.py     an image made again from the settings stored in it"""
