"""The audit as Markdown, JSON and SARIF, and the findings that were accepted."""

import json
from collections import Counter
from pathlib import Path

from security_audit.findings import SEVERITIES, Audit, Finding, rules, severity


def to_json(report: Audit) -> str:
    """Write the audit as JSON; a list of findings with a `reason` each is what `--baseline` reads."""
    entries = [
        {**f.as_dict(), **({"reason": report.accepted[f.id]} if f.id in report.accepted else {})}
        for f in report.findings
    ]
    return json.dumps({"files": report.files, "open": len(report.open), "findings": entries}, indent=2)


def to_sarif(report: Audit) -> str:
    """Write the audit as SARIF 2.1.0, which GitHub and editors show beside the lines."""
    levels = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "unknown": "warning"}
    results = []
    for f in report.findings:
        about = f.as_dict()
        location = {"physicalLocation": {"artifactLocation": {"uri": f.file}, "region": {"startLine": f.line}}}
        result = {
            "ruleId": f.rule,
            "level": levels[about["severity"]],
            "message": {"text": f"{about['title']}: {f.evidence}. {about['fix']}"},
            "locations": [location],
            "partialFingerprints": {"auditId/v1": f.id},
        }
        if f.id in report.accepted:
            result["suppressions"] = [{"kind": "external", "justification": report.accepted[f.id]}]
        results.append(result)
    described = [
        {
            "id": name,
            "shortDescription": {"text": rule["title"]},
            "help": {"text": rule["fix"]},
            "properties": {"tags": [rule["owasp"]]},
        }
        for name, rule in rules()["rules"].items()
    ]
    driver = {
        "name": "audit-19.7.1",
        "informationUri": "https://owasp.org/www-project-top-10-for-large-language-model-applications/",
        "rules": described,
    }
    sarif = {
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(sarif, indent=2)


def to_markdown(report: Audit) -> str:
    """Write the audit for people: the plan in the order of urgency, what was accepted and why, where keys are used."""
    counted = Counter(severity(f) for f in report.open)
    total = ", ".join(f"{counted[s]} {s}" for s in SEVERITIES if counted[s]) or "nothing to fix"
    lines = [
        "# Security audit",
        "",
        f"{report.files} files read; {total}; {len(report.findings) - len(report.open)} accepted.",
        "",
    ]
    lines += [
        f"The app {report.app} was started and its routes were walked."
        if report.app
        else "No app was started (--app): routes, errors and logs were not seen at work.",
        "",
    ]
    lines += ["## Remediation plan", "", "In this order:" if report.open else "Nothing is open.", ""]
    for number, f in enumerate(report.open, 1):
        lines += [f"### {number}. {one_line(f.as_dict()['title'])} ({severity(f)})", "", *described_as(f), ""]
    if taken := [f for f in report.findings if f.id in report.accepted]:
        lines += ["## Accepted", "", "Each with its reason, and with what would remove it.", ""]
        for f in taken:
            lines += [
                f"### {one_line(f.as_dict()['title'])} ({severity(f)})",
                "",
                *described_as(f),
                f"- accepted: {report.accepted[f.id]}",
                "",
            ]
    if report.key_uses:
        lines += ["## Where keys are used", "", "Every line that reads one, to be reviewed by a person:", ""]
        lines += [f"- `{file}:{line}` `{text.replace('`', chr(39))}`" for file, line, text in report.key_uses] + [""]
    lines += [
        "## What this audit cannot see",
        "",
        "The history in git (gitleaks), today's vulnerability database (pip-audit), other Python patterns (bandit),",
    ]
    lines += ["what the provider keeps, and whatever stands in front of the app (TLS, proxies)."]
    return "\n".join(lines) + "\n"


def described_as(f: Finding) -> list[str]:
    """Return one finding as a Markdown list."""
    about = f.as_dict()
    seen = f"`{f.evidence.replace('`', chr(39))}`" + (f": {one_line(f.detail)}" if f.detail else "")
    return [
        f"- where: `{f.file}:{f.line}` (id `{f.id}`, {about['owasp']})",
        f"- seen: {seen}",
        f"- fix: {about['fix']}",
        f"- verify: `{about['verify']}`",
    ]


def one_line(text: str) -> str:
    """Return a text that cannot break a Markdown list."""
    return " ".join(text.split()).replace("`", "'")


def accepted_by(baseline: Path | None) -> dict[str, str]:
    """Read ids and reasons; raises ValueError for anything that is no baseline."""
    if baseline is None:
        return {}
    data = json.loads(baseline.read_text(encoding="utf-8"))
    try:
        return {entry["id"]: str(entry.get("reason", "no reason was given")) for entry in data["findings"]}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{baseline} is no baseline: it needs a list `findings` with an `id` each") from error
