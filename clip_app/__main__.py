"""``python -m clip_app`` is ``clip-app``."""

from clip_app.cli import main

if __name__ == "__main__":
    main()
