"""Authentication, authorisation and accounting of every user request; the directory SAE → UKMS → AKMS."""
