"""What a task costs as more of them are queued and as more workers run: it shall stay the same."""
