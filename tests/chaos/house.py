"""The configuration that is stormed at, the changes to it, and how many calls at once it allows. Pure."""

import hashlib
from dataclasses import dataclass, field

from tests.chaos.asks import KEYS
from tests.chaos.plan import NAMES, Reload

SEND, FIRST_BYTE, IDLE, TOTAL = 1.0, 2.0, 1.0, 8.0          # seconds
HUNG = 5.0                  # seconds beyond its own deadlines until a worker is taken for hung
LIVES = TOTAL + HUNG        # seconds that a call may be at Ollama, and longer than a pool may be larger than it should
LONGEST = 3.0 + 2 * LIVES   # seconds: the queue, a worker that hangs, another one that hangs
CALM = Reload(0, 0.0)
"""What the storm begins and ends with."""

_CLIENTS = {"alice": "manage = true\n", "bob": "weight = 2\ndefault_class = \"interactive\"\n", "carol": "max_class = \"background\"\nmax_concurrency = {share}\n",
            "dave": "requests_per_minute = {rate}\n"}


def config(reload: Reload, rate: int = 300) -> str:
    """The file, but for what the harness writes into it. `rate` is of the one client whose requests are counted."""
    text = (f'[server]\nsend_timeout = "{SEND}s"\nhead_timeout = "2s"\nbody_timeout = "3s"\nheartbeat = "400ms"\n'
            f'heartbeat_plain = "{"600ms" if reload.plain_beats else "off"}"\n'
            f'[ollama]\nconnect_timeout = "500ms"\nfirst_byte_timeout = "{FIRST_BYTE}s"\nidle_timeout = "{IDLE}s"\ntotal_timeout = "{TOTAL}s"\n'
            f'[defaults]\nqueue_timeout = "{reload.patience}s"\nmax_starvation = "1s"\nmax_concurrency = {reload.sizes[1]}\nmax_queue = {reload.queue}\n'
            f'keep_alive = "{"5m" if reload.loaded else "ollama"}"\n')
    for (name, model), size in zip(NAMES.items(), reload.sizes, strict=True):
        if name == "g" and reload.unlisted:
            continue
        text += f'[models.{name}]\nmodel = "{model}"\nmax_concurrency = {size}\nmax_queue = {reload.queue}\n'
    for name, more in _CLIENTS.items():
        digest = hashlib.sha256(KEYS[name].encode()).hexdigest()
        text += f'[clients.{name}]\nkey_sha256 = "{digest}"\n{more.format(share=reload.share, rate=rate)}'
    return text


def spoil(text: str, how: str) -> str | None:
    """A file that must not be taken; None = no file at all."""
    return {"syntax": text + "[models.m\n", "key": text.replace("max_queue", "max_que"), "value": text.replace('"1s"', '"soon"'), "gone": None}[how]


@dataclass
class Caps:
    """How many calls of each model may be at Ollama: what held at any time in the last `LIVES` seconds, for who runs runs on."""

    history: list[tuple[float, dict[str, int]]] = field(default_factory=list)

    def change(self, at: float, sizes: tuple[int, ...]) -> None:
        """From now on, or a little later, these hold."""
        self.history.append((at, dict(zip(NAMES.values(), sizes, strict=True))))

    def allowed(self, since: float) -> dict[str, int]:
        """The most of each model that may have been seen since then."""
        begun = since - LIVES
        ruling = [sizes for number, (_, sizes) in enumerate(self.history)
                  if number + 1 == len(self.history) or self.history[number + 1][0] >= begun]
        return {model: max(sizes[model] for sizes in ruling) for model in NAMES.values()}

    def judge(self, since: float, seen: dict[str, int]) -> list[str]:
        """The high water of each model since then, held against it."""
        allowed = self.allowed(since)
        return [f"{count} calls of {model} at once, where {allowed[model]} were allowed" for model, count in seen.items() if count > allowed[model]]
