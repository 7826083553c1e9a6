"""Pictures and reports of a run: pure functions of what it stored."""
