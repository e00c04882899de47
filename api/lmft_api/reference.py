"""``python -m lmft_api.reference FOLDER`` writes the generated pages of the documentation."""

import sys
from pathlib import Path

from lmft_api.generate.reference import main

if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
