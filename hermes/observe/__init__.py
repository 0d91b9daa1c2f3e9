"""What can be seen of Hermes from outside: logs, status and usage. They read snapshots; nothing decides by them but the quotas, by the usage."""
