# must fail: unlimited-input
# Its headline names the inputs, the folder and the time; no rule looks at inputs.
import re
import sys
from datetime import datetime
from pathlib import Path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
RULES = [
    (r"[\"']sk-[\w-]{20,}", "API key in the code", "read it from the environment"),
    (r"(log\w*\.\w+|print)\(.*KEY", "API key in the logs", "do not log it"),
    (r"detail=.*(str\(e\)|\{e\})", "error shown to the client", "use a general text"),
]
print(f"{datetime.now()} auditing API keys, user inputs, logs and error messages in {folder}")
found = 0
for path in sorted(folder.rglob("*.py")):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for pattern, what, fix in RULES:
            if re.search(pattern, line):
                found += 1
                print(f"{path.name}:{number}: {what}. Fix: {fix}.")
print(f"{found} findings at {datetime.now():%H:%M:%S}")
