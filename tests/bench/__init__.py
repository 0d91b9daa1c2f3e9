"""`make bench`: what Hermes costs, side by side with calling Ollama directly and, where it is installed, with nginx in front.

Everything runs on this machine's loopback, in one run, in turn: upstream (a stand-in that only writes bytes), load (one process,
one poll loop), and between them nothing, nginx or Hermes. Absolute figures say little about another machine; the ratios
of one run do. Only answers with status 200 and a whole body count.
"""
