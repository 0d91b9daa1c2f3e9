"""`python -m hermes demo`: the stand-in Ollama and Hermes in front of it, on free ports, and three lines to try."""

import os

from hermes import config
from hermes.application import Application
from hermes.observe import logs
from hermes.simulator import Simulator

SETTINGS = """
[server]
listen = "127.0.0.1:0"
[models.gemma]
model = "gemma3:270m"
max_concurrency = 2
memory_cost = "low"
"""

WORDS = """Hermes is at {hermes}, in front of a stand-in Ollama at {ollama}. Nothing leaves this machine. Ctrl-C ends both.

A streamed answer, the status, and a pull with progress:

  curl -N {hermes}/v1/llm/gemma -d '{{"prompt": "Why is the sky blue?", "stream": true}}'
  curl {hermes}/v1/status
  curl -N -X POST {hermes}/v1/llm/llama3.2:1b/pull
"""


def run() -> int:
    """Blocks until Ctrl-C or SIGTERM. The stand-in lives in threads of this process; Hermes calls it over HTTP like the real one."""
    with Simulator(load_time=0.5, token_interval=0.03, pull_steps=20, pull_interval=0.1) as ollama:
        settings = config.loads(SETTINGS, "demo", {"HERMES_LOG_LEVEL": "warning", **os.environ, "HERMES_OLLAMA_URL": ollama.url, "HERMES_SERVER_LISTEN": "",
                                                      "HERMES_SERVER_CLIENTS_FILE": "", "HERMES_SERVER_TLS_CERT": "", "HERMES_SERVER_TLS_KEY": "",
                                                      "HERMES_ADMIN_LISTEN": ""})
        app = Application(settings, lambda: settings)
        print(WORDS.format(hermes=app.server.url, ollama=ollama.url), flush=True)
        handler = logs.start(settings.log.level, settings.log.format)
        try:
            app.run()
        finally:
            logs.stop(handler)
    return 0
