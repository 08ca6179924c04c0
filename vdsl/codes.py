"""What every diagnostic code means: the text behind `vdsl explain CODE`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """`summary` is one line; `body` says why it is an error and what to do; `example` is a short file or line."""

    summary: str
    body: str
    example: str = ""


CODES: dict[str, Explanation] = {
    # Syntax
    "too-large": Explanation(
        "the file is larger than any model needs to be",
        "A file may have 1,048,576 characters and 40,000 words and symbols. Numbers belong in a data file, which has "
        'no such limit: `data J on nn from "couplings.csv"`. The exit code is 4.',
    ),
    "too-deep": Explanation(
        "brackets, signs or operations are nested too deeply",
        "At most 100 brackets and signs may be open at once, an expression may be nested 200 deep, and a chain such as "
        "`a + b + c + …` may have 1000 operations. Name parts with `let` or `fn`, or read numbers from a data file and "
        "use `sum`. The exit code is 4.",
    ),
    "bad-encoding": Explanation(
        "the file is not UTF-8 text",
        "Files are read as UTF-8. Editors call it UTF-8 or Unicode (UTF-8); a byte order mark is allowed.",
    ),
    "bad-character": Explanation(
        "a character that no part of the language uses",
        "Outside comments and strings a file holds ASCII letters, Greek letters, digits, `_`, and the signs of the "
        "language. Control characters are refused everywhere.",
        "param L = 8 $",
    ),
    "lookalike-character": Explanation(
        "a character that looks like one of the language, but is another",
        "Text copied from a PDF, a web page or a word processor often has a typographic minus, quotes or blanks. They "
        "look right and are different characters, so they are refused and never guessed at. Type the ASCII one.",
        "param J = −1.0     # U+2212; write -1.0",
    ),
    "bad-line-ending": Explanation(
        "a carriage return that no newline follows",
        "Lines end with \\n or \\r\\n. A lone \\r would make what an editor shows differ from what is read.",
    ),
    "bad-string": Explanation(
        "a string that does not end on its line, or an unknown escape in one",
        'Strings stand in straight double quotes on one line. Inside, `\\\\`, `\\"`, `\\n` and `\\t` are a backslash, '
        "a quote, a newline and a tab. Write paths with `/`.",
        'model ising "no end',
    ),
    "bad-number": Explanation(
        "a number that a double cannot hold",
        "Numbers are doubles: 17 significant digits, up to 1.8e308. A literal may have 60 characters.",
        "param x = 1e999     # infinity is written inf",
    ),
    "unclosed-bracket": Explanation(
        "a bracket is opened and never closed",
        "Inside brackets a statement goes on over line ends, so a missing closing bracket swallows what follows. The "
        "diagnostic points at the bracket that was opened.",
        "interaction a = sum(i in sites: s[i]",
    ),
    "unmatched-bracket": Explanation(
        "a closing bracket without an opening one, or of another kind",
        "`(` is closed by `)`, `[` by `]`, `{` by `}`. Only the range of a parameter mixes them: `in [0, 1)`.",
        "let a = (1 + 2]",
    ),
    "unknown-statement": Explanation(
        "a line that does not start with a statement's first word",
        "Every statement starts with its kind: `param`, `let`, `lattice`, `field`, `interaction`, … One line is one "
        "statement; it goes on in the next line only inside brackets.",
        "J = 1.0     # write: param J = 1.0",
    ),
    "syntax": Explanation(
        "a statement is not written as the language has it",
        "The diagnostic says what was found and what may stand there instead. Every bad statement is reported; the "
        "others are read as usual.",
        "param L : int == 8",
    ),
    "chained-comparison": Explanation(
        "comparisons do not chain",
        "`a < b < c` would mean (a < b) < c in some languages and (a < b) and (b < c) in others. Write what you mean.",
        "interaction a = sum(i in sites where 0 < i < 4: s[i])     # 0 < i and i < 4",
    ),
    "not-a-reduction": Explanation(
        "only sum, prod, mean, max and min run over a set",
        "`NAME(i in SET: …)` is a reduction, and those are its names.",
        "observable m = average(i in sites: s[i])     # mean(i in sites: s[i])",
    ),
    "argument-order": Explanation(
        "an argument without a name after one with a name",
        "Arguments by position come first, arguments by name after them.",
        "lattice square(boundary = open, 8, 8)     # square(8, 8, boundary = open)",
    ),
    # Estimates
    "non-finite": Explanation(
        "an energy, an observable or ln q is infinite or not a number",
        "Estimates use every sample that was drawn. One whose weight is infinite or undefined makes them undefined, "
        "and leaving it out would bias the rest, so the run stops and names the sample and the quantity. Look for a "
        "division by zero, a logarithm of zero, an overflow, or an `inf` in an interaction. The exit code is 3.",
        "interaction wall = sum(i in sites: 1 / (1 - s[i]))     # infinite for s = 1",
    ),
    "low-ess": Explanation(
        "the importance weights leave few effective samples",
        "The effective sample size (Σw)²/(nΣw²) says what fraction of the guide's samples the reweighted averages rest "
        "on. Below 0.05, or below 200 samples in all, their errors are themselves uncertain. Train longer, draw more "
        "samples, or reweight less far. The variational free energy is an upper bound at any effective sample size.",
    ),
    "heavy-tails": Explanation(
        "a few samples carry most of the weight, and larger weights are likely still unseen",
        "A generalised Pareto distribution is fitted to the largest weights. If its index k is above 0.7 (or above "
        "1 - 1/log10(n) for few samples) the average of the weights converges too slowly to be trusted, and ln Z is "
        "low more often than its error bar says. Train longer; the variational free energy stays an upper bound.",
    ),
    "modes-missing": Explanation(
        "an independent Markov chain finds configurations that the guide (almost) never draws",
        "The effective sample size of a guide's own samples cannot see what they never visit. So a short Markov chain "
        "is run beside it: ln q of the chain's configurations gives the forward effective sample size and two more "
        "estimates of ln Z. If ln Z of the guide's samples is lower by three standard errors, or the forward size is "
        "below a third of the guide's own, the guide has collapsed onto part of the model. Its averages are those of "
        "that part. Train longer, or anneal more slowly.",
    ),
    "chain-disagrees": Explanation(
        "the guide and an independent Markov chain give different averages",
        "Both should agree within their errors, and neither is known to be right: the chain may not have reached "
        "equilibrium, or the guide's weights may hide a part of the model. Run `vdsl sample` for longer and compare.",
    ),
    "chain-not-mixed": Explanation(
        "the Markov chains beside a solve disagree with each other",
        "They start from independent random states, and the spread between them is far larger than within them "
        "(R-hat above 1.2). The mode check is then no evidence for or against the guide.",
    ),
    # Exact answers
    "too-expensive": Explanation(
        "an exact answer would take more memory or time than is allowed",
        "Variable elimination needs a table for every set of variables that become joined on the way; its size grows "
        "exponentially with the width of the interaction graph (about the shorter side of a planar lattice, twice "
        "that on a torus). The diagnostic says what it would cost. Make the lattice smaller or open along one axis, or "
        "use `vdsl solve`. The exit code is 4.",
        "lattice cubic(8, 8, 8)     # vdsl exact",
    ),
    "not-discrete": Explanation(
        "exact answers need discrete fields",
        "Elimination sums over states, so every field must be `spin`, `potts(q)`, `clock(q)` or `occupation`. Use "
        "`vdsl solve` for continuous fields, or `vdsl sample` for an independent Markov chain. The exit code is 4.",
        "field theta : angle     # vdsl exact",
    ),
    "not-local": Explanation(
        "an energy or observable is not a sum of terms of a few variables",
        "Elimination works on interactions of a few variables at a time: sums, products of sums, and functions of a "
        "few neighbours. A function of an extensive sum, such as abs(sum(…)), joins all variables. Models of up to "
        "2^20 configurations are enumerated instead. Use `vdsl solve`. The exit code is 4.",
        "interaction hard = abs(sum(i in sites: s[i]))",
    ),
    "not-a-number": Explanation(
        "an energy is NaN or minus infinity",
        "Some configurations have an energy that is not a number, or minus infinity, so Z does not exist. Look for a "
        "logarithm or a division of something that can be zero. Plus infinity is allowed: it forbids a configuration. "
        "The exit code is 3.",
        "interaction e = sum(i in sites: log(s[i]))",
    ),
}
