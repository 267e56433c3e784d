"""What a dashboard looks at: the words it asks in (`base`), and who answers, each in a module of its own."""
