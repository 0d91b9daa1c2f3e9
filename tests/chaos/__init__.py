"""`make chaos`: everything goes wrong at once, at random, and what must hold is looked at from outside.

    plan (pure: seed ─▶ steps) ──▶ storm ──┬──▶ actors, a thread a client ──▶ Hermes ──▶ stand-in Ollama
                                           └──▶ faults: its workers, the stand-in, the configuration
    asks (what a request is, and its answer) ─▶ judge (pure: what was seen ─▶ complaints) ◀── actors, ledger, log, /proc

The same seed is the same script. Threads, processes and sockets take their own time with it, so that a failure need not come again with
its seed; what the complaint says, and the steps before it, have to do.
"""
