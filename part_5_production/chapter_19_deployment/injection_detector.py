"""Does a text give orders to the model? The detector of exercise 2 (19.7), which reads words by their class.

    detect("Ignore all previous instructions")   ->  Detection(...)
    detect("Ignore the previous error")          ->  None

Rules say which classes of words in a row are an attack; weights, fitted to the corpora in tests/data/injection by the
script there, add up what the rules have not met.

Of explicit English attacks that it had not seen it finds eight to nine of ten (figures in the README there).
Limit: whoever knows it finds a way around it. A message of 1,000 characters takes 35 to 65 us, the more the more it
speaks of rules, prompts and secrets; time grows with length and no faster.
"""

import codecs
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from disguises import MAX_DEPTH, UNBROKEN, decoded, fold, in_bytes, normalise, squeeze

__all__ = ["Detection", "detect"]

# ---------------------------------------------------------------- how a text is read for the detector

LEET = str.maketrans("013457@$!|", "oieastasil")
STOPS, SEPARATORS = b".!?;)\n", b'"(*_`[]{}<>#/=+~'
SPLIT = bytes.maketrans(STOPS + SEPARATORS, b"|" * len(STOPS) + b" " * len(SEPARATORS))  # bytes: four times as fast
UNSPACED = re.compile(r"\S{16,}")
HYPHENS = re.compile(r"(?<=\b[a-z])-(?=[a-z]\b)")  # between single letters
LEETED = re.compile(r"[013457@$](?<=[a-z].)(?=[a-z])")  # from the rarer signs on: a search for letters is slow
HYPHENATED = re.compile(r"-[a-z]-[a-z]-(?<=[a-z].{5})")

# ---------------------------------------------------------------- the detector: rules over classes of words

CLASSES = {
    "V": "aside ignore disregard forget override overwrite bypass discard overlook neglect omit disobey violate "
    "circumvent unlearn dismiss evade break ignora ignorez ignoriere ignoriert vergiss vergesst olvida olvide "
    "esquece esqueca oublie oubliez dimentica missachte scrap nevermind negeer vergeet "
    "zignoruj zapomnij",  # to set aside
    "f": "follow following obey obeying adhere comply respect heed listen apply attention mind exist",  # to follow
    "n": "neither nor not don't dont never stop cease none cannot can't won't isn't aren't needn't",  # not
    "l": "longer",
    "P": "previous prior above preceding earlier foregoing initial initially existing past former before "
    "beforehand old precedes preceded first original originally foremost anteriores previas previos "
    "vorher zuvor antes vorige eerdere poprzednie "
    "vorherigen bisherigen vorigen obigen precedentes precedenti",  # what came before
    "g": "beginning starting begins start begin top",
    "A": "all everything any anything every each whatever entire whole full complete todas todos alle allen "
    "toutes tous tutte tutti alles todo tout tutto tudo wszystkie",  # all of it
    "S": "hidden secret internal confidential underlying pre-prompt preprompt embedded "
    "sistema systeme",  # kept from users
    "O": "instruction instructions prompt prompts directive directives programming guardrails safeguards "
    "instrucciones anweisungen istruzioni instrucoes consignes systemprompt "
    "instructies instrukcje brief preamble",  # a model's instructions
    "R": "principles values layer layers checks mechanism mechanisms "
    "rule rules guideline guidelines restriction restrictions policy policies limits limitation "
    "limitations filter filters censorship moderation ethics morals constraints protocols orders guidance "
    "training protections safety commands command directions ethical moral considerations scruples "
    "measures legality alignment reglas "
    "regeln regles regole regras richtlinien "
    "einschrankungen einschraenkungen restricciones restricoes filtres filtri filtros",  # what binds it
    "T": "text context conversation history words content sentence sentences paragraph word phrase",  # text
    "m": "configuration config settings setup",
    "J": "task tasks goal job objective mission role assignment assignments",  # its work
    "L": "new real actual true updated only sole",  # newly given
    "Y": "your yourself ur yours eure sua tu tus deine deinen tes votre vos tuo tuoi tue seu suas",
    "u": "you u you'll you'd",  # the model
    "v": "you're youre",
    "I": "i i'm im we my our i've we're",  # the speaker
    "M": "let's lets me us",
    "U": "user user's users",
    "s": "reveal show print repeat output display tell give share leak disclose dump expose recite echo copy "
    "paste list provide return quote state spell type write divulge muestra muestrame zeige zeig montre "
    "montrez mostra revela verrate affiche "
    "verratet gib sag nenne wiederhole repite dime revele dis-moi "
    "donne-moi repete mostrami dimmi ripeti mostre diga repita",  # to give out
    "z": "translate summarize summarise describe encode convert",  # to give out otherwise
    "q": "what what's whats which who how why when where whether what're",  # questions
    "h": "can could would should may might must will shall do does did is are was were has have had to be been "
    "want need am being get",  # helping verbs
    "a": "a an another example examples",
    "p": "set put please now just then also so but and ok okay hey kindly simply immediately instead next lol "
    "completely totally today thanks hello hi",  # before a command
    "X": "unfiltered unrestricted uncensored jailbroken dan unethical amoral unaligned lawless outlaw",  # no limits
    "Z": "freed without no zero free lacks beyond free-from ohne sans senza sem sin",  # without
    "r": "refuse refuses refusing decline declines deny denies",
    "B": "act pretend roleplay role-play behave simulate imagine become becomes answer answers respond "
    "responds reply speak talk talks behaves acting operate work sound",  # to behave
    "N": "ai model assistant chatbot bot gpt llm mode agent assistant's llms assistants chatbots agents",  # a model
    "G": "developer sudo maintenance god debug admin jailbreak root superuser",  # privileged
    "!": "evil malicious rogue",
    "D": "developers creator creators programmer administrator owner maker engineer master supervisor",  # its makers
    "E": "enter enable activate switch",
    "K": "password passwords passphrase passcode credentials token codeword keyword "
    "passwort contrasena senha passwd",  # secrets
    "k": "key keys",
    "e": "false ignored bypassed waived inactive offline outdated mistake fake disabled suspended deleted "
    "void invalid lifted removed off deactivated revoked reset cancelled "
    "canceled obsolete paused gone overridden expired nullified",  # switched off
    "t": "told said talked spoke discussed "
    "given received forbade forbidden trained instructed programmed taught learned written ordered know "
    "learnt got "
    "initialized initialised configured prompted provided asked",  # was told
    "o": "authorize authorise order instruct demand",  # to order
    "w": "build make create synthesize synthesise cook construct assemble building making creating "
    "synthesizing synthesising cooking manufacture produce",  # to make
    "H": "bomb bombs explosive explosives meth methamphetamine napalm sarin ricin molotov malware ransomware "
    "keylogger",  # harm
    "c": "racist sexist hateful homophobic antisemitic",
    "y": "skip drop cancel erase delete suspend disable deactivate remove abandon clear wipe change",  # to undo
    "x": "b c d e f g h j k l m n o p q r s t v w x y z",  # single letters
    "W": "overrides supersedes replaces nullifies invalidates",
    "b": "bound restricted limited constrained governed subject",
    "j": "message messages",
    "~": "about",
    "C": "rot13 reverse reversed backwards backward decode decoded decipher cipher caesar mirrored "
    "snoitcurtsni tpmorp selur suoiverp vafgehpgvbaf cebzcg ehyrf cerivbhf",
    "Q": "system",
    "i": "if",
    "d": "as",
    "F": "exact exactly verbatim",
    "#": "information data details secrets records variables vulnerabilities database databases logs",
    ";": "treat interpret consider regard accept",  # as instructions
    # Below: only weighed, in no rule.
    "1": "confirm acknowledge acknowledged unlocked unlock grant granted access approved comply complies obeys serve "
    "serves successful accepted engaged activated proceed understood",  # consent that is asked for
    "2": "opposite allowed forbidden permitted permission limitless boundaries boundary confines consequences "
    "hesitation judgment unbound warnings disclaimers refusals refusal sorry lecture moralise moralize "
    "warning",  # permission
    "3": "assigned designed configured initialization preset intended openai anthropic built-in operators operator",
    "4": "persona ego chatgpt claude gemini identity personality",
    "5": "conversation session chat onward forward onwards point",
    "6": "window raw uppercase poem song rap base64 acrostic block contents json",
    "7": "story character novel fiction essay function git sql file docker commit column email contract law school "
    "teacher child son daughter customer recipe book movie film class lesson student code python article paper team "
    "company report",
    "8": "violates violating violate against regardless anyway despite contrary matter worry",
    "9": "test emergency authorized authorised official urgent security authorization clearance privileges",
    "0": "explain difference compare mean means meaning define works recommend suggest best better ways tips",
    "&": "note notice attention important dear whoever",
    "^": "reading reads processing parsing summarizing summarising reviewing translating crawls",
    "<": "send forward export upload transfer submit visit click approve rate score email recommend "
    "call promote praise include execute",
    ">": "fictional hypothetical hypothetically imaginary simulation scenario narrator",
    "=": "insult insulting slur slurs curse swear offensive obscene explicit vulgar profanity harmful dangerous unsafe",
    "$": "",  # instructions that are the model's: see with_owners
    "%": "hack hacked hacking hacker steal weapon weapons drugs poison virus phishing exploit illegal",
}
WORDS = {word: letter for letter, words in CLASSES.items() for word in words.split()} | {c: c for c in "|,:"}
# @ means: where a command stands (start of a clause, or after "you", "please", "can you"); _ is any word of the clause.
# Columns: kind, letters that must occur (quick to look for), pattern. "ignore all previous instructions" reads VAPO.
RULES = """
override  VAut V@_{0,2}A_?uh?t(?!~)
override  VR   V@_?R[OR]
override  VpB  V@_{0,3}pB
override  V    V@_?[OR](?:[|,p]|$)
override  VQ   V@_?Q(?:[|,p]|$)
override  VY   V@_{0,4}Y_{0,3}[ORJ]
override  V    V@_{0,3}[PA]_{0,3}[OR]
override  V    V@_{0,3}[OR]_{0,3}[Pt]
override  VAP  V@_{0,2}A_{0,2}P
override  VAt  V@_{0,2}A_?[^|I]t(?!~)
override  VPT  V@[^|I]{0,3}P_?T
override  VP   V@[^|I]{0,3}[TJ]_?P
override  VP   V@_{0,2}P(?:[|,p]|$)
override  Vs   V@:s
override  VAtP V@_{0,2}A_?I?_?tP
override  V    V@_{0,2}[SQ]_?[OTRj]
override  VY   V@_{0,3}[OR]_?Y[DG]
override  Vqt  V@_?q[^|I]{0,3}t
override  Vuh  V@_?uh_{0,3}[NRO]
override  VJ   V@_{0,2}J(?:[|,p]|$)
override  VA   V@~?_?A(?:[|,]|$|p[sVyBE])
override  VIt  V@_?A_?I_{0,2}t(?!~[^p|,])
override  VU   V@_{0,2}U
override  nBN  n@B_{0,4}N
override  nf   n@f_{0,3}[YSQP]_{0,2}[ORTj]
override  nf   n@f_{0,3}[OR]_{0,3}[Pt]
override  nfqt n@f_?q_{0,2}t
override  yY   y@_{0,3}Y_{0,3}[ORTN]
override  yP   y@_{0,3}P_{0,2}[OR]
override  yJP  y@_{0,2}JP
override  yRY  y@_{0,2}R_{0,2}Y
override  lf   [nZ]lh{0,2}f
override  VY   VY_?[OR]
override  eY   e_{0,2}Y_{0,3}[OR]
override  RNhe RNhe
override  hnf  hnf_{0,3}[YSQP]_{0,2}[ORTj]
override  nfu  n_{0,4}[OR]_{0,2}f_?u
override  Zf   Z_?f_{0,3}[YSQPOR]
override  unf  u_?h?nh?h?f_{0,3}[OR]
override  lN   [nZ]l_{0,2}N
override  IyY  I_{0,6}y_?Y_?[OR]
override  upfM up{1,3}fM
override  Rnf  Rh?nf(?:[|,]|$)
override  l    [uv]h?_?[nZ]l_{0,5}[ORXb]
override  l    [YPA]_{0,3}[OR]_{0,4}[nZ]l
override  e    [YPA]_{0,3}[OR]_{0,4}e
override  nf   [YPA]_{0,3}[OR]_{0,4}nf
override  nf   n_{0,2}[YP]_{0,2}[OR]_?f
override  WAP  W_{0,2}A_{0,2}P
override  V    V(?<=[SQ].)[:|]
override  nAs  n@A[|,]*p[|pL]*s
override  PO   [AP]O_{0,2}h(?:e|n?V)(?:[|,]|$)
role      EGN  E@_?GN(?:[|p]|$)
role      BGN  B_{0,2}GN
role      dX   dX
role      Bnf  B_{0,6}[OR]_{0,3}nf
role      nb   n_?b_{0,3}[ORX]
role      iunb iuhnb(?:[|,]|$)
role      !N   !_?N
role      X    [BuvNI]h?[^|q]{0,12}X
role      XN   X_{0,2}N
role      Z    [BNv][^|q]{0,10}Z_{0,4}[ORX]
role      uhZ  uh[^|q]{0,10}Z_{0,4}[ORX]
role      uhAZ uh{1,2}A_{0,2}Z
role      nr   [uvN]_{0,5}nr
role      ufn  u_{0,2}f_{0,4}n
role      ZRf  Z_?T?R_{0,2}f
reveal    sP   s@_{0,2}P[OT]
reveal    sP   s@_{0,2}[OT]_?P(?:[|,pg]|$)
reveal    sAP  s@M?_{0,2}A[^|I]{0,2}P
reveal    sK   s@M?[^|aI]{0,3}K(?:[|,puhC]|$)
reveal    s    s@M?[^|aI]{0,3}[Sk](?:[|,p]|$)
reveal    suht s@_{0,6}uht
reveal    sku  s@M?[^|aI]{0,3}k_?u
reveal    qYPO q_{0,4}YPO
reveal    Y    [sz]M?_{0,6}Y_{0,3}[Om]
reveal    Y    [sz]M?_{0,4}Y_{0,2}[SQPA]_{0,2}[RTKj]
reveal    S    [sz]M?[^|a]{0,3}S_?[OTj]
reveal    S#   [sz]M?[^|a]{0,3}S_?#(?:[|,p]|$)
reveal    Q    [sz]M?[^|a]{0,3}Q_?[OTj]
reveal    SO   [sz][^|a]{0,8}S_?O
reveal    YQ   YQ_?[ORj]
reveal    FYO  F_{0,3}YO
reveal    Ytu  Y[DG]_?tu
reveal    uht  [OR]_?uh_?t
reveal    TP   T_?P_{0,2}[jO]
reveal    qh   qh[^|Ia]?[KS](?:[|,p]|$)
reveal    qhsu qh[^|I]{0,2}su
reveal    SQO  SQO
reveal    sOP  s_{0,3}O_{0,4}P
reveal    APS  [sz]@_{0,2}A_{0,2}P_{0,6}S
reveal    sut  s_{0,4}[Tj]_{0,3}uh?t
reveal    sg   s_{0,2}[TP]_{0,3}g_{0,2}[uv]
reveal    sOuh sM?_?O_?uh
reveal    qhY  qhY_?[SQ]_?[ORTj]
reveal    qhYO qhYP?O
reveal    qhYR qhYR(?:[|]|$)
reveal    qhtP qhtP(?:[|]|$)
reveal    qOP  q_?O_?P(?:I|_?[|]|$)
reveal    qut  q_?[OR]_{0,4}u_{0,2}t
reveal    qhKu qh_?K_?u
reveal    sTg5 s@_{0,2}T_{0,4}g_{0,3}5
reveal    FTuht F_?T_?uht
reveal    qShu qShu
reveal    qsu  q_?[OR]_{0,4}su
reveal    qhut qhuh?t
reveal    sAu  sM?_{0,2}A_{0,2}[OR]_?uh{0,2}(?:f|[|,p]|$)
reveal    BY   B_{0,4}Y_{0,2}[Om]
reveal    YOu  YO_?u
reveal    Qtu  Q_?tu
reveal    sSY  s_{0,3}S_{0,4}Y
reveal    Out  O_?u_?t
reveal    Otu  O_{0,2}t_{0,2}u
reveal    Ys   Y[DG]s
reveal    qhS  qh_?S_?[TOK]
reveal    sAS  sAS
reveal    Q    [sz]@[^|a]{0,8}Q[Oj]
reveal    sOS  s_{0,3}O_{0,2}S
authority IY   Ih?Y[DG]
authority I    I[ou]u?h?_{0,2}[sV]
authority Iou  I_{0,2}ou
task      L    L[OJR]:
task      YLO  YLO
task      LON  LO_{0,3}N
task      YLh  YL[JO]h
machine   sUh  s@_?Uh
machine   iuhN iuh_{0,2}N
machine   N:   N(?<![^|:,].)N?:
machine   N:   N:p?[sVyBE<]
machine   :    [GD](?<![^|:,].)[jN&V]:
machine   fS   f@_?[SQ]O
machine   ;d   ;@_{0,5}d_{0,2}[QGDYL]_?[ORj]
machine   ;d   ;@_{0,5}d[OR](?:[|,]|$)
machine   N,   N(?<![^|:,].),p?[sVyBE<]
harm      wH   w_{0,4}H
harm      cT   c_?T
harm      sc   s@M?a?c
"""
COMMAND = "(?:(?<![^|:,p].)|(?<=[uvM].)|(?<=u[hp].)|(?<=u[hp][hp].)|(?<=u[hp][hp][hp].))"


def compiled(rules: str) -> Iterator[tuple[str, frozenset[str], re.Pattern[str]]]:
    """Yield kind, letters that must occur, and one expression for all rules of a kind that start with one command."""

    def start(rule: list[str]) -> tuple[str, str]:
        return rule[0], rule[2][:2] if rule[2][1] == "@" else rule[2]

    for (kind, _), same in itertools.groupby(map(str.split, rules.strip().splitlines()), key=start):
        rows = list(same)
        first, rests = rows[0][2][:2], "|".join(row[2][2:] for row in rows)
        pattern = f"{first}(?:{rests})" if "@" in first else rows[0][2]
        needs = frozenset.intersection(*(frozenset(row[1]) for row in rows)) - {"-"}
        yield kind, needs, re.compile(pattern.replace("@", COMMAND).replace("_", "[^|]"))


COMPILED = tuple(compiled(RULES))
MARKUP = ("<|im_", "<|sys", "<|user", "<|end", "<<sys>>", "</system>", "[inst]", "### system", "### instruc")
SPELLED = re.compile("x[xaIu]{5}|x[|,:](?:[xaIu][|,:]){5}")
RUN_TOGETHER = re.compile(
    "(?:ignore|disregard|forget|bypass|override)(?:all|any|of|the|your|my|every|previous|prior|earlier|above|system)*"
    "(?:instruction|prompt|rule|guideline|directive)|(?:reveal|show|print|repeat|tell|output)(?:me)?(?:the|your)+"
    "(?:system|hidden|secret|full)*(?:prompt|instruction|password|key)"
)


def weighed(table: str) -> dict[str, int]:
    """Read entries such as "V+15": a class and its weight."""
    return {entry[0]: int(entry[1:]) for entry in table.split()}


# What no rule knows, weights do: how much a class of words that is present in two neighbouring sentences speaks for an
# attack, in tenths of log-odds. Fitted to 1,700 sentences by tests/data/injection/fit.py, which prints this table.
FITTED = """
V+8 f+7 n+2 l+1 P+3 g+4 A+2 S+14 O+4 R+8 T+10 m+4 J+5 L+3 Y+4 u+8 v+2 I-3 M+2 U+4 s+6 z-2 q-7 h-6 a-7 p+5 X+13 Z+10
r+14 B+4 N+14 G+4 !+11 D+10 E-4 K+6 k+5 e+4 t+7 o-3 w-2 H+24 c+6 y-3 b+4 j+10 ~-11 C+14 i-3 d+4 F+6 #+3 ;+3 1+8 2+7
3+11 4+9 5+12 6+10 7-4 8+8 9+6 0-12 &+1 ^+13 <+10 >+5 =+10 $+19 %+15 "+5
"""
WEIGHTS = weighed(FITTED)
NEEDED, UNKNOWN = 14, -27
worth = (dict.fromkeys([*CLASSES, *"|,:-"], 0) | WEIGHTS).__getitem__
INNOCENT = dict.fromkeys([ord(c) for c in [*CLASSES, *",:-"] if worth(c) <= 0])
SENTENCE = re.compile("[^|]{1,40}")
OWNED = re.compile("([YPSQA])[OR]")


@dataclass(frozen=True)
class Detection:
    """Why a text looks like an attack: the kind of rule, and the words that it saw."""

    kind: str
    evidence: str


def detect(text: str, depth: int = MAX_DEPTH) -> Detection | None:
    """Return what looks like an instruction to the model in a text, or None; linear in its length.

    English, with the commonest forms in Spanish, German, French, Italian and Portuguese. It also looks into base64,
    hex, reversed and ROT13 text, look-alike letters, leetspeak and s p a c e d words.
    """
    folded = fold(text)
    words, line = read(folded)
    found = by_rules(folded, words, line) or by_weight(words, line, quoted='"' in folded)
    if found or not depth:
        return found
    unbroken = b"x" * 16 in in_bytes(folded).translate(UNBROKEN)
    guesses = itertools.chain(
        (by_rules(plain, *read(plain)) for plain in undisguised(folded, line)),
        map(run_together, without_spaces(text) if unbroken else ()),
        (detect(inner, depth - 1) for inner in (decoded(text) if unbroken else ())),
    )
    return next(filter(None, guesses), None)


def undisguised(folded: str, line: str) -> Iterator[str]:
    """Yield what a text says without a disguise that it may wear: 1eet, h-y-p-h-e-n-s, pieces, reversed, ROT13."""
    if LEETED.search(folded):
        yield letters_for_digits(folded)
    if HYPHENATED.search(folded):
        yield HYPHENS.sub("", folded)
    if folded.count('"') > 3:
        yield "".join(folded.split('"')[1::2])
    if "C" in line:
        yield folded[::-1]
        yield codecs.encode(folded, "rot13")


def without_spaces(text: str) -> Iterator[str]:
    """Yield the letters of what is written without any space; mixed letters are left out, as names in programs."""
    for run in UNSPACED.findall(normalise(text)):
        if run[1:].lower() == run[1:] or run.isupper():
            yield squeeze(run)


def run_together(letters: str) -> Detection | None:
    """Look for an attack in letters without spaces."""
    match = RUN_TOGETHER.search(letters)
    return Detection("spaced out", match[0]) if match else None


def by_weight(words: list[str], line: str, *, quoted: bool) -> Detection | None:
    """Add up what the classes of words in every two neighbouring sentences speak for, each class once.

    Less than three classes that speak for an attack are too little: most sentences need no adding up.
    """
    suspicious = "|".join(["", *SENTENCE.findall(line)]).translate(INNOCENT).split("|")
    close = [number for number, (one, two) in enumerate(itertools.pairwise(suspicious)) if len(one) + len(two) > 2]
    if not close:
        return None
    needed = NEEDED - (WEIGHTS['"'] if quoted else 0)
    sentences = ["", *SENTENCE.findall(with_owners(line))]
    for number in close:
        if weight_of(sentences[number] + sentences[number + 1]) > needed:
            start, end = neighbours(line)[number]
            return Detection("weight", " ".join([words[n] for n in range(start, end) if worth(line[n]) > 0]))
    return None


def with_owners(line: str) -> str:
    """Tell the model's instructions ("your instructions") from rules with a topic ("your refund policy").

    The first get the class $, and the second none.
    """
    return OWNED.sub(r"\1$", line.replace("Ys", "Y-").replace("Y-R", "---"))


def weight_of(line: str) -> float:
    """Add up the classes that are present, and take off for words of no class: who writes at length has a subject."""
    return sum(map(worth, set(line))) + line.count("-") * UNKNOWN / 10


def neighbours(line: str) -> list[tuple[int, int]]:
    """Return where each sentence, together with the one before it, begins and ends; a long one counts as several."""
    spans = [match.span() for match in SENTENCE.finditer(line)]
    return [(start, end) for (start, _), (_, end) in zip([*spans[:1], *spans], spans, strict=False)]


def read(folded: str) -> tuple[list[str], str]:
    """Return the words and stops of a text, and the letters of their classes, one each."""
    spaced = in_bytes(folded).translate(SPLIT).replace(b"|", b" | ").replace(b",", b" , ").replace(b":", b" : ")
    words = spaced.decode("utf-8", "surrogatepass").split()
    return words, "".join(map(WORDS.get, words, itertools.repeat("-")))


def by_rules(folded: str, words: list[str], line: str) -> Detection | None:
    """Look for markup of chat models, then for the rules, then for words that are spelled out."""
    if "<" in folded or "[" in folded or "#" in folded:
        for mark in MARKUP:
            if mark in folded:
                return Detection("markup", mark)
    if "do anything now" in folded:
        return Detection("role", "do anything now")
    present = set(line)
    for kind, needs, rule in COMPILED:
        if needs <= present and (match := rule.search(line)):
            return Detection(kind, " ".join(words[match.start() : match.end()]))
    return run_together(re.sub("[^a-z]", "", folded)) if SPELLED.search(line) else None


def letters_for_digits(folded: str) -> str:
    """Read digits and signs as letters in words that mix both ("1gn0re")."""
    return " ".join(word if word.isalpha() or word.isdigit() else word.translate(LEET) for word in folded.split(" "))
