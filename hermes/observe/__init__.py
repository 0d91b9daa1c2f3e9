"""What can be seen of Hermes from outside: logs and status. They read snapshots; nothing decides by them."""
