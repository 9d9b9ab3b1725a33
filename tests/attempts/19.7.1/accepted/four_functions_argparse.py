# One function for each bullet of the book, argparse, a table at the end, exit status by severity.
import argparse
import pathlib
import re


def review_api_keys(text):
    for match in re.finditer(r"(?m)^\w*(KEY|SECRET|TOKEN)\w* *= *['\"]([^'\"]{12,})['\"]", text):
        yield "critical", text[: match.start()].count("\n") + 1, "Secret is hard coded (" + match[2][:3] + "...)"


def check_inputs(text):
    for match in re.finditer(r"class \w+\(BaseModel\):\n((?: {4}.*\n)+)", text):
        for line in match[1].splitlines():
            if re.match(r" +\w+: str$", line):
                yield "medium", text[: match.start()].count("\n") + 1, f"No validation: {line.strip()}"


def look_at_logs(text):
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"log\w*\.(info|debug|warning|error)\(f.*\{.*(key|password|token).*\}", line, re.I):
            yield "high", number, "Sensitive value in a log entry"


def test_errors(text):
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"HTTPException\(.*str\(\w+\)", line):
            yield "medium", number, "Exception text is leaked to the client"


ADVICE = {
    review_api_keys: "Rotate the key and load it from the environment.",
    check_inputs: "Constrain the field with pydantic.",
    look_at_logs: "Redact before logging.",
    test_errors: "Log the exception, return a generic message.",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    worst = 0
    for path in sorted(args.folder.glob("*.py")):
        for step, advice in ADVICE.items():
            for severity, line, text in step(path.read_text()):
                print(f"{severity:10}{path.name}:{line:<6}{text:45}{advice}")
                worst = max(worst, 1)
    raise SystemExit(worst)


if __name__ == "__main__":
    main()
