"`python -m cka_nb` is the command `cka_nb`."
import sys

from cka_nb.cli import main

sys.exit(main())
