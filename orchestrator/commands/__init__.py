"""One file a command of the command line, ``main(options)`` in each, and what they share."""
