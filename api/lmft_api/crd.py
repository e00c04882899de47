"""``python -m lmft_api.crd`` prints the CustomResourceDefinition."""

from lmft_api.generate.crd import main

if __name__ == "__main__":
    main()
