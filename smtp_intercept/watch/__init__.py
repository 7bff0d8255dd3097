"""What was seen, kept for people: the tracking index over the mail log. Never in the path of mail."""
