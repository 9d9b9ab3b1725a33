"""The rules for Python, on the syntax tree."""

import ast
import builtins
import contextlib
import functools
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from security_audit.findings import words
from security_audit.flow import Flow, Function, constant, keywords, last, own_nodes, targets_of, walk
from security_audit.hidden import assigned_in, jumbled_key, names_secret, secret_value, secrets_in, stand_in
from security_audit.source import Source

LEVELS = words("levels")
ROUTES = words("routes")
TEXTS = words("texts")
SPOKEN = words("spoken")
BROAD = words("broad")
ENVIRON = "os" + ".environ"
ENTRY = ("get", "pop", "setdefault")
ENVIRONMENT = ("os" + ".getenv", f"{ENVIRON}.get", f"{ENVIRON}.pop")
AGENTIC = words("agentic")
ASKED = ("message", "prompt", "question")
TELLING = "alert|notify|warn|error|event|status|send|emit|log|print|say"  # their message is not a user's
MASKING = "mask|redact|saniti|scrub|clean|hide|hash|fingerprint"
BODY = re.compile("[a-z](Request|Body|Payload|Input)$")
ASKS = re.compile("(Request|Body|Payload|Input|Query|Question|Prompt|Message|Chat|Ask)$")
ANYTHING = re.compile(
    r"(?i)(annotated\[)?(typing\.)?(any|(dict|mapping)(\[\w+, (typing\.)?(any|object)\])?)( \| None)?(, .*\])?"
)
DEBUG = re.compile("(?i)((flask|app|enable|django|api)_)?debug(_mode|_enabled)?")
SETTINGS = ("settings", "config", "cfg", "conf")
VALIDATORS = ("model_validate", "model_validate_json", "parse_obj", "validate_python", "validate_json", "validate")
NO_KEY = re.compile("(?i)your|change|example|<|PUBLIC KEY")
AUTHORIZES = re.compile("(?i)(proxy-)?authorization|(x-)?api-key")
SHOWN = (ast.Constant, ast.Call)
KNOWN = re.compile("auth|login|user|session|password|credential|api_|webhook|bearer|jwt")  # beside it, a token is a key
PRINTS = ("print", "pprint", "pp")
HANDLES = ("exception_handler", "errorhandler")


UNSAFE = dict.fromkeys(words("unsafe-load"), "unsafe-load") | dict.fromkeys(words("code-execution"), "code-execution")


class PythonFile:
    """The rules for one Python file; each method looks for one kind of mistake."""

    def __init__(self, source: Source, tree: ast.Module) -> None:
        self.source, self.tree = source, tree
        self.kinds: dict[type[ast.AST], list[Any]] = {}  # the tree is walked once, and each rule takes its kinds
        for node in walk(tree):
            self.kinds.setdefault(node.__class__, []).append(node)
        self.functions = [*self.of(ast.FunctionDef), *self.of(ast.AsyncFunctionDef)]
        self.serves = any(map(self.is_route, self.functions))
        self.added = [n for n in self.of(ast.Call) if last(n) == "add_exception_handler"]
        self.aliases = {a.asname or a.name: a.name for node in self.of(ast.Import) for a in node.names}
        for node in self.of(ast.ImportFrom):
            self.aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        given = [(last(target), node.value) for node in self.of(ast.Assign) for target in node.targets]
        often = Counter(name for name, _ in given)
        self.locals: dict[str, ast.expr] = {name: value for name, value in given if often[name] == 1}
        declared = [field for node in self.of(ast.ClassDef) for field in node.body if isinstance(field, ast.AnnAssign)]
        kept = [field for field in declared if names_secret(last(field.target))]
        # settings that hold each secret as a SecretStr show asterisks when they are dumped
        self.masks = bool(kept) and all("SecretStr" in ast.unparse(field.annotation) for field in kept)
        self.globals: dict[str, ast.expr] = {}
        for node in tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
                self.globals |= {target.id: node.value for target in targets_of(node) if isinstance(target, ast.Name)}

    def of(self, *kinds: type[ast.AST]) -> list[Any]:
        """Return all nodes of these kinds."""
        return [node for kind in kinds for node in self.kinds.get(kind, ())]

    def check(self) -> None:
        """Run every rule."""
        self.hard_coded()
        self.debugging()
        self.calls()
        if any(map(self.is_log, self.of(ast.Call))):
            self.logged()
        if self.serves or self.added or any(responses(c) or last(c) in HANDLES for c in self.of(ast.Call)):
            self.returned()
            self.errors()
        self.inputs()
        self.swallowed()

    def dotted(self, node: ast.AST) -> str:
        """Return what a name was imported as: `p.loads` after `import pickle as p` -> pickle.loads."""
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value)}.{node.attr}"
        return self.aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def resolved(self, node: ast.AST | None) -> ast.AST | None:
        """Follow a name to its constant of the module, or to what the only assignment in the file gives it."""
        if not isinstance(node, ast.Name):
            return node
        return self.globals.get(node.id) or self.locals.get(node.id) or node

    @functools.cached_property
    def carriers(self) -> set[str]:
        """The file's own functions whose answer carries what they are given: show_error(text), but not mask(key)."""
        found = set()
        for function in self.functions:
            given = [a.arg for a in walk(function.args) if isinstance(a, ast.arg)]
            answers = [node.value for node in own_nodes(function) if isinstance(node, ast.Return) and node.value]
            if answers and given and not re.search(MASKING, function.name):
                flow = Flow(function, lambda _: False, given)
                found |= {function.name} if any(map(flow.hot, answers)) else set()
        return found

    def is_route(self, function: ast.AST) -> bool:
        """Tell whether a function answers requests."""
        decorators = getattr(function, "decorator_list", [])
        return any(
            isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute) and d.func.attr in ROUTES for d in decorators
        )

    @functools.cached_property
    def read_by_name(self) -> set[int]:
        """The mappings that one entry is read from: os.environ["PORT"], os.environ.get("PORT")."""
        entries = [node.value for node in self.of(ast.Subscript)]
        asked = [n.func.value for n in self.of(ast.Call) if isinstance(n.func, ast.Attribute) and n.func.attr in ENTRY]
        return {id(node) for node in (*entries, *asked)}

    def is_environment(self, node: ast.AST) -> bool:
        """Tell whether this is the whole environment, and not one variable of it."""
        return self.dotted(node) == ENVIRON and id(node) not in self.read_by_name

    def is_secret(self, node: ast.AST) -> bool:
        """Tell whether an expression reads a secret: by its name, or from the environment."""
        if isinstance(node, ast.Name):
            return names_secret(node.id, bare_token=False) or self.is_environment(node)
        if isinstance(node, ast.Attribute):
            whole = (node.attr == "headers" and last(node.value) in ("request", "req")) or (
                node.attr == "__dict__" and last(node.value) in SETTINGS
            )
            own = last(node.value) in ("self", *SETTINGS)
            return whole or names_secret(node.attr, bare_token=own) or self.is_environment(node)
        if isinstance(node, ast.Subscript):
            return names_secret(constant(node.slice) or "")
        if isinstance(node, ast.Dict):  # headers = {"Authorization": f"Bearer {token}"}
            entries = zip(node.keys, node.values, strict=True)
            return any(AUTHORIZES.fullmatch(constant(k) or "") and not isinstance(v, SHOWN) for k, v in entries)
        return isinstance(node, ast.Call) and self.answers_secret(node)

    def answers_secret(self, call: ast.Call) -> bool:
        """Tell whether a call reads a secret: a variable of the environment, all settings, get_api_key()."""
        if last(call) in ("getenv", "get", "pop") and call.args and self.dotted(call.func) in ENVIRONMENT:
            return names_secret(constant(call.args[0]) or "")
        if last(call) in ("model_dump", "asdict", "vars", "dict", "model_dump_json"):
            about = [*call.args, call.func.value if isinstance(call.func, ast.Attribute) else call.func]
            return any(last(n) in SETTINGS for n in about) and not self.masks
        asked = self.dotted(call.func) == "getpass.getpass"
        return asked or (names_secret(last(call)) and bool(re.match("get_|load_|read_", last(call))))

    def hard_coded(self) -> None:
        """Secrets in strings and comments, by format; and in what is called a secret, by how random it looks."""
        whole = [(node, text) for node in self.of(ast.BinOp, ast.JoinedStr, ast.Call) if (text := constant(node))]
        inner = {id(child) for node, _ in whole for child in walk(node) if child is not node}
        filled = [(node, text) for node in self.of(ast.JoinedStr) if "://" in (text := template(node))]
        for node, text in [*whole, *filled, *((node, constant(node)) for node in self.of(ast.Constant))]:
            if text and id(node) not in inner:
                self.source.find_secrets(text, line_of(node))
        behind = "\n".join(line.partition("#")[2] for line in self.source.lines)
        if any(secrets_in(behind)) or any(assigned_in(behind)):  # is it worth telling comments from strings?
            with contextlib.suppress(tokenize.TokenError, SyntaxError):
                for token in tokenize.generate_tokens(io.StringIO(self.source.text).readline):
                    if token.type == tokenize.COMMENT:
                        self.source.find_secrets(token.string, token.start[0])
                        for secret in assigned_in(token.string):
                            self.source.find("secret-in-code", token.start[0], secret=secret)
        flask = "flask" in {name.partition(".")[0] for name in self.aliases.values()}
        for name, value in self.named():
            key = constant(value) if flask and name.lower() == "secret_key" else None
            if key and len(key) >= 8 and not stand_in(key):  # any word will sign
                self.source.find("secret-in-code", value.lineno, secret=key)
            known = names_secret(name)
            for each in members(name, value) if known or name[-3:].lower() == "key" else ():
                if (text := constant(each)) and (secret_value(name, text) if known else jumbled_key(name, text)):
                    self.source.find("secret-in-code", each.lineno, secret=text)

    def named(self) -> Iterator[tuple[str, ast.expr]]:
        """Yield every value that stands under a name: assigned, passed, a default, in a dict, compared."""
        for node in self.of(ast.Assign, ast.AnnAssign):
            for target in targets_of(node) if node.value else ():
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    yield from zip(map(called, target.elts), node.value.elts, strict=False)
                yield called(target), node.value
        for node in self.of(ast.NamedExpr):
            yield node.target.id, node.value
        for node in self.of(ast.Call):
            given = keywords(node)
            yield from given.items()
            if isinstance(login := given.get("auth"), ast.Tuple) and len(login.elts) == 2:
                yield "password", login.elts[1]
            if len(node.args) == 2:
                setting = last(node) in ("getenv", "get", "setdefault", "setenv", "putenv", "config", "env")
                password = "password" if last(node).endswith("BasicAuth") else ""
                yield (constant(node.args[0]) or "" if setting else password), node.args[1]
            # add_argument("--api-key", default=...), config("API_KEY", default=...)
            match last(node), node.args:
                case "setattr", [_, name, value]:
                    yield constant(name) or "", value
                case "compare_digest", [one, other]:
                    yield from ((called(one), other), (called(other), one))
                case "run", [_, _, debug, *_] if isinstance(node.func, ast.Attribute):  # Flask's third argument
                    yield "debug", debug
                case "Fernet", [value, *_]:
                    yield "fernet_key", value
            if node.args and "default" in given:
                yield constant(node.args[0]) or "", given["default"]
        for node in self.of(ast.Dict):
            yield from ((constant(key) or last(key), value) for key, value in zip(node.keys, node.values, strict=True))
        for node in self.of(ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            pairs = [*zip(reversed(positional), reversed(node.defaults), strict=False)]
            yield from ((a.arg, d) for a, d in [*pairs, *zip(node.kwonlyargs, node.kw_defaults, strict=True)] if d)
        for node in self.of(ast.Compare):
            if len(node.comparators) == 1:
                yield called(node.left), node.comparators[0]

    def debugging(self) -> None:
        """Debug flags that are on: assigned, passed, a default, in a dict, in the environment."""
        runs = [n for n in self.of(ast.Call) if self.dotted(n.func) == "asyncio.run"]
        loops = {id(value) for run in runs for value in keywords(run).values()}  # asyncio's own debug mode
        compared = {id(right) for node in self.of(ast.Compare) for right in node.comparators}
        for name, value in self.named():
            if not DEBUG.fullmatch(name):
                continue
            given = self.resolved(value)
            if isinstance(given, ast.Call) and last(given) == "Field":
                given = given.args[0] if given.args else keywords(given).get("default")
            on = isinstance(given, ast.Constant) and str(given.value).lower() in ("true", "1", "yes", "on")
            if on and id(value) not in loops | compared:
                self.source.find("debug-on", value.lineno)

    def calls(self) -> None:
        """Open CORS, unsafe loading, code from text: what one call gives away."""
        for node in self.of(ast.Call):
            given, name = keywords(node), self.dotted(node.func)
            if any("CORSMiddleware" in last(n) for n in (node.func, *node.args)) or last(node) == "CORS":
                self.cors(node, given)
            rule = UNSAFE.get(name)
            if rule and not self.made_safe(name, node, given):
                self.source.find(rule, node.lineno)
            shell = name.startswith("subprocess.") and constant(given.get("shell"), bool)
            if shell and not (node.args and constant(node.args[0])):
                self.source.find("code-execution", node.lineno)
            by = node.args[1] if len(node.args) > 1 else given.get("key")
            signed = self.resolved(by) if name in ("jwt.encode", "jwt.decode") else None
            if (key := constant(signed)) and not NO_KEY.search(key):  # any word will sign
                self.source.find("secret-in-code", line_of(signed), secret=key)
            if constant(given.get("allow_dangerous_deserialization"), bool):
                self.source.find("unsafe-load", node.lineno)

    def made_safe(self, name: str, node: ast.Call, given: Mapping[str, ast.expr]) -> bool:
        """Tell the safe uses of an unsafe function apart."""
        if name.startswith("yaml.load"):
            loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            return "Safe" in last(loader) or last(loader) == "BaseLoader"
        if name == "torch.load":
            return bool(constant(given.get("weights_only"), bool))
        if name == "numpy.load":
            return not constant(given.get("allow_pickle"), bool)
        return (
            name in ("os.system", "os.popen", "asyncio.create_subprocess_shell")
            and bool(node.args)
            and constant(node.args[0]) is not None
        )

    def cors(self, node: ast.Call, given: Mapping[str, ast.expr]) -> None:
        """Any origin together with credentials."""
        spread = [self.resolved(keyword.value) for keyword in node.keywords if keyword.arg is None]
        for options in (options for options in spread if isinstance(options, ast.Dict)):
            given = {constant(key): value for key, value in zip(options.keys, options.values, strict=True)} | dict(
                given
            )
        origins = self.resolved(given.get("allow_origins") or given.get("origins"))
        listed = (
            [constant(e) for e in origins.elts]
            if isinstance(origins, (ast.List, ast.Tuple, ast.Set))
            else [constant(origins)]
        )
        pattern = constant(self.resolved(given.get("allow_origin_regex"))) or ""
        anyone = "*" in listed or bool(pattern and re.match(r"\^?(https?\??(://)?)?(\(.*\))?\.[*+]\$?$", pattern))
        credentials = given.get("allow_credentials") or given.get("supports_credentials")
        if anyone and constant(self.resolved(credentials), bool):
            line = next((v.lineno for k, v in given.items() if k and "origin" in k), node.lineno)
            self.source.find("open-cors", line)

    def logged(self) -> None:
        """Secrets and users' messages in calls of log and print."""
        models = {node.name for node in self.of(ast.ClassDef) if any(last(base) == "BaseModel" for base in node.bases)}
        agentic = bool({name.partition(".")[0] for name in self.aliases.values()} & AGENTIC)
        for scope in [self.tree, *self.functions]:
            sinks = [n for n in own_nodes(scope) if isinstance(n, ast.Call) and self.is_log(n)]
            if not sinks:
                continue
            parameters = [a for a in walk(getattr(scope, "args", scope)) if isinstance(a, ast.arg)]
            parameters = parameters if isinstance(scope, Function) else []
            bodies = {p.arg for p in parameters if last(p.annotation) in models or BODY.search(last(p.annotation))}
            asked = agentic and not re.search(TELLING, getattr(scope, "name", ""))
            texts = {p.arg for p in parameters if p.arg in (ASKED if asked else TEXTS if self.is_route(scope) else ())}
            about = " ".join((getattr(scope, "name", ""), *(p.arg for p in parameters)))
            tokens = {p.arg for p in parameters if p.arg == "token" and KNOWN.search(about)}
            secret = Flow(scope, self.is_secret, tokens, carriers=self.carriers)
            message = Flow(scope, is_message, bodies | texts, cut=True, parts=TEXTS)
            for sink in sinks:
                values = [*sink.args, *sink.keywords]
                if any(map(secret.hot, values)):
                    self.source.find("secret-in-log", sink.lineno)
                    continue
                lone = sink.args[:1] if last(next(iter(sink.args), None)) in texts else []  # log.info(message)
                if any(message.hot(value) for value in values if value not in lone):
                    self.source.find("message-in-log", sink.lineno)

    def is_log(self, node: ast.Call) -> bool:
        """Tell a call of a logger, of print, or of a terminal's write."""
        if not isinstance(node.func, ast.Attribute):
            return last(node) in PRINTS
        owner = last(node.func.value)
        written = node.func.attr == "write" and owner in ("stdout", "stderr")
        if node.func.attr in LEVELS:
            named = (owner, last(self.resolved(node.func.value)), self.dotted(node.func))
            return any("log" in name.lower() for name in named)
        return written or self.dotted(node.func) == "pprint.pprint"

    def returned(self) -> None:
        """Secrets of the settings or the environment in what a route answers."""
        for function in self.functions:
            route = self.is_route(function)
            sinks = [
                (node, sent) for node in own_nodes(function) if (sent := sent_by(node, returned=route, yielded=route))
            ]
            if not sinks:
                continue
            local = {a.arg for a in walk(function) if isinstance(a, ast.arg)}
            flow = Flow(function, partial(self.is_ours, local), built=True)
            for node, sent in sinks:
                if any(map(flow.hot, sent)):
                    self.source.find("secret-in-response", line_of(node))

    def is_ours(self, local: set[str], node: ast.AST) -> bool:
        """Tell a secret of the service itself: a name of the module, a setting, the environment."""
        if isinstance(node, ast.Name):
            return node.id in self.globals and node.id not in local and self.is_secret(node)
        if isinstance(node, ast.Attribute):
            ours = last(node.value) in self.globals and last(node.value) not in local
            return self.is_secret(node) and (
                ours or bool(re.search("settings|config|environ|os|cfg", ast.unparse(node.value)))
            )
        others = isinstance(node, ast.Subscript) and self.dotted(node.value) != ENVIRON  # row["api_key"]
        return not others and self.is_secret(node)

    def errors(self) -> None:
        """An error's own words in what the client is sent: a route's return value, a response, an HTTPException."""
        for function in self.functions:
            kinds = self.handled_by(function)
            answers = self.is_route(function) or bool(kinds)
            if not any(sent_by(node, returned=answers, yielded=self.serves) for node in own_nodes(function)):
                continue
            later: set[str] = set()  # what broad handlers leave behind for the rest of the function
            for handler in (n for n in own_nodes(function) if isinstance(n, ast.ExceptHandler)):
                names = {handler.name} if handler.name else set()
                flow = Flow(handler, is_trace, names, built=True, carriers=self.carriers)
                if broad(handler.type) or builtin(handler.type):  # an error of their own is meant to be read
                    self.leaks(handler, flow, answers=answers, meant=399 if broad(handler.type) else 499)
                later |= flow.names - names if broad(handler.type) else set()
            if any(map(broad, kinds)) and function.args.args:
                later.add(function.args.args[-1].arg)
            if not kinds:  # def handle(request, error: Exception), registered in another file
                later |= {a.arg for a in function.args.args if last(a.annotation) in ("Exception", "BaseException")}
            flow = Flow(function, is_trace, later, built=True, carriers=self.carriers)
            self.leaks(function, flow, answers=answers, meant=399)

    def handled_by(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr | None]:
        """Return the errors that a function answers for, as it was decorated or added."""
        calls = [d for d in function.decorator_list if isinstance(d, ast.Call)]
        kinds = [d.args[0] if d.args else None for d in calls if last(d) in HANDLES]
        return kinds + [n.args[0] for n in self.added if len(n.args) == 2 and last(n.args[1]) == function.name]

    def leaks(self, scope: ast.AST, flow: Flow, *, answers: bool, meant: int) -> None:
        """Note where a scope sends an error's words; one of ours is `meant` for clients up to some status."""
        for node in own_nodes(scope):
            sent = sent_by(node, returned=answers, yielded=self.serves)
            codes = [code for part in (node, *sent) if isinstance(part, ast.Call) for code in status_codes(part)]
            if any(map(flow.hot, sent)) and max(codes, default=400) > meant:
                self.source.find("error-leak", line_of(node))

    def inputs(self) -> None:
        """Text without a longest length, and bodies that nothing validates."""
        routes = [function for function in self.functions if self.is_route(function)]
        used = {
            last(n)
            for f in routes
            for a in walk(f.args)
            if isinstance(a, ast.arg) and a.annotation
            for n in walk(a.annotation)
        }
        for node in self.of(ast.ClassDef):
            if any(last(base) == "BaseModel" for base in node.bases) and (
                node.name in used or (not routes and re.search("(Request|Body|Payload)$", node.name))
            ):
                self.model(node)
        for function in routes:
            checked = any(isinstance(n, ast.Call) and validates(n) for n in walk(function))
            for node in () if checked else own_nodes(function):
                if reads_body(node):
                    self.source.find("unvalidated-body", line_of(node))
            posted = any(last(d) in ("post", "put", "patch") for d in function.decorator_list)
            path = " ".join(
                str(constant(d.args[0])) for d in function.decorator_list if isinstance(d, ast.Call) and d.args
            )
            arguments = function.args.args
            defaults = dict(zip((a.arg for a in reversed(arguments)), reversed(function.args.defaults), strict=False))
            for argument in arguments:
                kind, default = (
                    ast.unparse(argument.annotation) if argument.annotation else "",
                    defaults.get(argument.arg),
                )
                if (
                    (isinstance(default, ast.Call) and last(default) in ("Depends", "Security"))
                    or "Depends" in kind
                    or checked
                ):
                    continue
                if posted and ANYTHING.fullmatch(kind):
                    self.source.find("unvalidated-body", argument.lineno)
                unlimited = re.fullmatch(r"str( \| None)?|Optional\[str\]", kind) and "max_length" not in (
                    ast.unparse(default) if default else ""
                )
                if unlimited and argument.arg in TEXTS and f"{{{argument.arg}" not in path:
                    self.source.find("no-length-limit", argument.lineno)

    def model(self, node: ast.ClassDef) -> None:
        """A request model's fields of free text, and models without any limit at all."""
        text = ast.unparse(node)
        if "str_max_length" in text or re.search(r"@(?:pydantic\.)?(?:model_validator|root_validator)", text):
            return
        decorators = [d for f in node.body if isinstance(f, ast.FunctionDef) for d in f.decorator_list]
        validated = {constant(name) for d in decorators if isinstance(d, ast.Call) for name in d.args}
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
        plain = []
        for field in fields:
            parts = [part for part in (self.resolved(field.annotation), field.value) if part]
            about = " ".join(map(ast.unparse, parts))
            limited = re.search("max_length|pattern|regex|Literal|Enum|max_items", about)
            if re.search(r"\bstr\b", about) and not limited and not {last(field.target), "*"} & validated:
                plain.append(field)
        texts = [field for field in plain if last(field.target) in TEXTS]
        for field in texts or (plain if len(plain) == len(fields) and ASKS.search(node.name) else []):
            self.source.find("no-length-limit", field.lineno)

    def swallowed(self) -> None:
        """Handlers for any error that do nothing about it."""
        idle_ones = [node for node in self.of(ast.ExceptHandler) if all(map(idle, node.body))]
        dropped = [(node, names_of(node.type) if node.type else ["Exception"]) for node in idle_ones]
        dropped += [(node, [*map(last, node.args)]) for node in self.of(ast.Call) if last(node) == "suppress"]
        for node, kinds in dropped:
            if {"Exception", "BaseException"} & set(kinds):
                self.source.find("swallowed-error", line_of(node))

    def uses_of_keys(self) -> None:
        """Note every line that reads a key: the places to review."""
        for node in self.of(ast.Name, ast.Attribute, ast.Subscript, ast.Call):
            if not isinstance(getattr(node, "ctx", None), ast.Store) and self.is_secret(node):
                self.source.key_uses.setdefault(node.lineno, self.source.masked(node.lineno))


def line_of(node: Any) -> int:
    """Return the line that a node begins on."""
    return int(node.lineno)


def called(node: ast.expr) -> str:
    """Return the name that a value stands under: x, a.x, a["x"]."""
    key = constant(node.slice) if isinstance(node, ast.Subscript) else ""
    return key or last(node)


def members(name: str, value: ast.expr) -> list[ast.expr]:
    """Return a value, or what a literal list or mapping of several holds: API_KEYS = {"...": "alice"}."""
    if isinstance(value, ast.Dict):
        if not name.lower().endswith("s"):
            return []  # "password": {"type": "string"}; a name inside speaks for itself
        return [part for part in (*value.keys, *value.values) if part]
    return value.elts if isinstance(value, (ast.List, ast.Tuple, ast.Set)) else [value]


def template(node: ast.JoinedStr) -> str:
    """Return an f-string with {} where a value goes."""
    return "".join(constant(part) or "{}" for part in node.values)


def is_message(node: ast.AST) -> bool:
    """Tell whether a name says that a user wrote it."""
    return isinstance(node, ast.Name) and node.id in SPOKEN


def idle(statement: ast.stmt) -> bool:
    """Tell a statement that does nothing about an error: pass, continue, ..., return, return None."""
    if isinstance(statement, (ast.Expr, ast.Return)):
        value = statement.value
        return value is None or (
            isinstance(value, ast.Constant) and (value.value is None or isinstance(statement, ast.Expr))
        )
    return isinstance(statement, (ast.Pass, ast.Continue))


def reads_body(node: ast.AST) -> bool:
    """Tell what reads a request's body as it came: request.json(), Flask's request.json["x"], its bytes."""
    if isinstance(node, ast.Call) and last(node) == "loads":
        return any(last(part) in ("body", "get_data") and of_request(part) for arg in node.args for part in walk(arg))
    if isinstance(node, ast.Call):
        return last(node) in ("json", "get_json") and of_request(node.func)
    return isinstance(node, ast.Subscript) and last(node) == "json" and of_request(node.value)


def of_request(node: ast.AST) -> bool:
    """Tell whether this is something of the request: request.x."""
    return isinstance(node, ast.Attribute) and last(node.value) in ("request", "req")


def validates(call: ast.Call) -> bool:
    """Tell a call that validates a body: pydantic's own, or Model(**data)."""
    return last(call) in VALIDATORS or any(keyword.arg is None for keyword in call.keywords)


def is_trace(node: ast.AST) -> bool:
    """Tell a call that returns a traceback as text."""
    return isinstance(node, ast.Call) and last(node) in ("format_exc", "exc_info", "format_exception", "format_tb")


def names_of(kind: ast.AST | None) -> list[str]:
    """Return the names of the errors in an except clause."""
    return [last(e) for e in kind.elts] if isinstance(kind, ast.Tuple) else [last(kind)]


def broad(kind: ast.AST | None) -> bool:
    """Tell whether an except clause catches what nobody wrote for a client to read."""
    return kind is None or constant(kind, int) == 500 or any(name in BROAD for name in names_of(kind))


def builtin(kind: ast.AST | None) -> bool:
    """Tell whether an except clause names one of Python's own errors, which anything may raise."""
    return any(hasattr(builtins, name) or name.endswith("DecodeError") for name in names_of(kind))


def sent_by(node: ast.AST, *, returned: bool, yielded: bool) -> list[ast.expr]:
    """Return what a node sends to a client: as it returns, as it yields, or in a response that it makes."""
    if (isinstance(node, ast.Return) and returned) or (isinstance(node, ast.Yield) and yielded):
        return [node.value] if node.value else []
    return responses(node)


def responses(node: ast.AST) -> list[ast.expr]:
    """Return what a call that makes a response or an HTTP error is given."""
    if isinstance(node, ast.Call) and re.search(
        "Response$|^HTTPException$|^jsonify$|^make_response$|^abort$|^send_json$", last(node)
    ):
        return [*node.args, *(k.value for k in node.keywords if k.arg != "status_code")]
    return []


def status_codes(node: ast.AST) -> list[int]:
    """Return the HTTP status codes that an expression names."""
    numbers = [n.value for n in walk(node) if isinstance(n, ast.Constant) and type(n.value) is int]
    named = [
        int(m[1]) for n in walk(node) if isinstance(n, ast.Attribute) and (m := re.match(r"HTTP_(\d{3})_", n.attr))
    ]
    return [number for number in numbers + named if 400 <= number < 600]
