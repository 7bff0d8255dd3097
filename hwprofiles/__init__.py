"""What the box is made of, and the settings that fit it. Knows hardware, neither bridges nor mail."""
