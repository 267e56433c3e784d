"""What a dashboard looks at.

- `base`: the words it asks in.
- `local`: a file here. `ahead`: the first look at it; `crowd`: of thousands, those who have changed.
- `remote`: a meter elsewhere. `remote_link`: the way there; `remote_words`: what it answers, read back.
"""
