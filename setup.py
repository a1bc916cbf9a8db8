"""Maps the top-level folders `weights/` and `configs/` into the package; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

BUNDLED = {"instapipe._bundled.weights": "weights", "instapipe._bundled.configs": "configs"}

setup(
    packages=[*find_packages(include=["instapipe", "instapipe.*"]), *BUNDLED],
    package_dir=BUNDLED,
    package_data={"instapipe": ["py.typed"], **{package: ["**/*"] for package in BUNDLED}},
)
