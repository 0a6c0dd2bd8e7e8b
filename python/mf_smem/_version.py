# SPDX-License-Identifier: Apache-2.0
"""Version of the package; a build writes the one it was asked for (environment variable VERSION)."""

__version__: str = "1.0.0"
