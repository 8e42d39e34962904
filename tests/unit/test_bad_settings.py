"""What bad settings and words get, from the library and from the command: a clear error, and a store as it was.

One table: what is wrong, the exception, a text that names it, and the command's words where there are some.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import layerhold
from layerhold import errors
from layerhold.config import Config
from layerhold.ids.mappings import IdMappings, IdRange
from layerhold.userns import AutoUserns
from tests import stores
from tests.unit.archive.tars import member, tar_of
