"""Exercise 1 (19.7): audit an agent for security issues.

The book asks to review where API keys are used, to check all inputs, to look for sensitive data in logs, to test error
messages for leaks, and for a document with a remediation plan. Notice:

* It reads the syntax tree: a key in two pieces is found, a word in a comment about keys is not, and a value is followed
  through assignments until it reaches a log, a response or nothing.
* A finding carries an id that survives moving lines, so that an accepted one stays accepted (`--baseline`).
* With `--app` it also starts the app in a process of its own, with canaries for keys and messages, and looks where they
  come out. What could not be checked is a finding as well: silence is not safety.

Run it:    python exercise_1_19_7_solution.py                    (audits the agent of 19.2; its report: the .md beside)
           python exercise_1_19_7_solution.py PATH --app my_app:app --format markdown|json|sarif --baseline FILE
Check it:  make check EX=19.7.1                                  (MINE=your_audit.py checks yours)
Use too:   bandit (many more Python patterns), gitleaks (the history in git), pip-audit (today's vulnerabilities).

Limit: it follows values inside one file, knows the patterns in security_audit/rules.toml, and proves nothing absent.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from security_audit.app import audit_app
from security_audit.findings import Audit, Finding
from security_audit.reports import accepted_by, to_json, to_markdown, to_sarif
from security_audit.static import audit

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared.config import CHAPTER, ROOT, environment

__all__ = ["Audit", "Finding", "audit", "audit_app", "to_json", "to_markdown", "to_sarif"]

OURS = ("shared", "requirements.txt", ".gitignore", ".env.example")  # beside exercise 3 of 19.2: the agent of 19.2
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH")


def main(argv: list[str] | None = None) -> int:
    """Audit and print the report; 0 nothing open, 1 findings, 2 could not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="files and folders (default: the agent of 19.2)"
    )
    parser.add_argument("--app", metavar="MODULE:FACTORY", help="start this app from PATH and walk its routes")
    parser.add_argument("--format", choices=("markdown", "json", "sarif"), default="markdown")
    parser.add_argument(
        "--baseline", type=Path, metavar="FILE", help="findings that are accepted: an earlier JSON report"
    )
    args = parser.parse_args(argv)
    paths, app, baseline = args.paths, args.app, args.baseline
    if not paths:
        agent = CHAPTER / "exercise_3_19_2_solution.py"
        paths, app = (
            [agent, CHAPTER / "requirements.txt", *(ROOT / name for name in OURS)],
            app or f"{agent.stem}:create_app",
        )
        baseline = baseline or CHAPTER / "security_audit" / "accepted.json"
    folder = next((p if p.is_dir() else p.parent for p in paths), Path())
    try:
        accepted = accepted_by(baseline)
        report = audit(paths)
    except (OSError, ValueError) as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    if not report.files:
        print(f"cannot run: nothing to read in {', '.join(map(str, paths))}", file=sys.stderr)
        return 2
    walked: list[Finding] = []
    if app:
        kept = {name: value for name, value in environment().items() if name in KEPT}
        walked = audit_app(app, folder, kept)
    report = replace(report, findings=(*report.findings, *walked), accepted=accepted, app=app or "")
    text = {"markdown": to_markdown, "json": to_json, "sarif": to_sarif}[args.format](report)
    print(text.encode("ascii", "backslashreplace").decode())
    return 1 if report.open else 0


if __name__ == "__main__":
    raise SystemExit(main())
