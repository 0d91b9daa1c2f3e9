"""A stand-in Ollama with a scheduler, a memory and faults.

The tests, the demo and the benchmark talk to it as they would to the real one. Shapes follow recordings of a real
Ollama; scheduling follows ollama-api.md §3. The text of an answer depends on its prompt alone: `expected_text`.

    client ──TCP──▶ server (a thread a connection) ──▶ native / openai / responses / anthropic / speech (what to say)
                                                   ├──▶ catalog / management (which models there are)
                                                   └──▶ scheduler (when), wire (how, and with which fault)
"""

from hermes.simulator.faults import Fault
from hermes.simulator.ledger import SimRequest, Upload
from hermes.simulator.models import SimModel
from hermes.simulator.server import Simulator
from hermes.simulator.text import expected_text, expected_thinking

__all__ = ["Fault", "SimModel", "SimRequest", "Simulator", "Upload", "expected_text", "expected_thinking"]
