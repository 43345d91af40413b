"""Installs packages of conda channels into an environment, with the command line
of `micromamba install` as far as the build script uses it, on rattler's solver
(py-rattler). It ends with code 3 where a channel cannot be reached."""
import argparse
import asyncio
import datetime
import os
import sys

import rattler
from rattler import exceptions


def arguments():
    p = argparse.ArgumentParser(prog="conda.py")
    p.add_argument("command", choices=["install"])
    p.add_argument("--yes", action="store_true")
    p.add_argument("--quiet", action="store_true")
    p.add_argument("--no-rc", action="store_true")
    p.add_argument("--override-channels", action="store_true", required=True)
    p.add_argument("--prefix", required=True)
    p.add_argument("--channel", action="append", required=True)
    p.add_argument("--file", required=True)
    return p.parse_args()


async def install(a):
    with open(a.file) as f:
        specs = [line.strip() for line in f if line.strip()]
    cache = os.path.join(os.environ["MAMBA_ROOT_PREFIX"], "pkgs")
    newest = os.environ.get("RM_NEWEST")
    client = rattler.Client.default_client(max_retries=2, timeout=120)
    gateway = rattler.Gateway(cache_dir=cache, client=client)
    records = await rattler.solve(
        sources=[rattler.Channel(c) for c in a.channel],
        specs=[rattler.MatchSpec(s, strict=False) for s in specs],
        gateway=gateway,
        virtual_packages=rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env()),
        exclude_newer=datetime.datetime.fromisoformat(newest) if newest else None,
        timestamp_policy="allow-missing",
        timeout=datetime.timedelta(minutes=10),
    )
    await rattler.install(records, target_prefix=a.prefix, cache_dir=cache, show_progress=False, client=client)


def main():
    a = arguments()
    try:
        asyncio.run(install(a))
    except (exceptions.GatewayError, exceptions.FetchRepoDataError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 3
    except (exceptions.SolverError, exceptions.InvalidMatchSpecError, exceptions.InstallerError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


def leave(code):
    # Not through the interpreter's finalization, in which threads of the solver that
    # still give a result back abort the process after all is done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


leave(main())
