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
        "something is larger than any model needs to be",
        "A file may have 1,048,576 characters and 40,000 words and symbols. A lattice may have 10^8 sites, a graph "
        "4,000,000 bonds, an expression with its functions written out 100,000 operations. A reduction may run over "
        "10^10 elements, all its binders together, a `range` over 10^7, a scan over 100,000 values. Data may have "
        "3 x 10^7 entries, a data file 256 MiB, a csv file 10^7 numbers. Limits are checked before anything is "
        'allocated. Numbers belong in a data file: `data J on nn from "couplings.csv"`. The exit code is 4.',
        "lattice cubic(100000, 100000, 100000)",
    ),
    "too-deep": Explanation(
        "brackets, signs or operations are nested too deeply",
        "At most 100 brackets and signs may be open at once, and an expression may be nested 200 deep; with its "
        "functions written out it may be 120 deep. Long sums and products, `a + b - c + …`, are not deep, however many "
        "terms they have, nor are conditions joined by `and` or `or`; chains of `/`, `//`, `%`, `^` and `else if` are. "
        "Name parts with `let`, or read numbers from a data file and use `sum`. The exit code is 4.",
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
    "bad-name": Explanation(
        "a name that is too long to read",
        "A name has at most 100 characters: letters, Greek letters, digits and `_`, and no digit in front.",
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
    "cut-short": Explanation(
        "the time limit ended training early",
        "A plan is made from the time of a few steps, and a limit that compiling uses up, or a machine that has become "
        "slower, leaves fewer of them. The estimates are those of the guide as it was then: their errors and the "
        "variational bound hold, but a longer limit gives better ones.",
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
    "sectors-missing": Explanation(
        "the guide and Hamiltonian chains do not visit the same topological sectors",
        "U(1) fields on a two-dimensional torus fall into sectors of Q = Σ arg P/2π. The guide's samples and the "
        "chains of the mode check are sorted by Q. A sector that several annealed populations visit and the guide has "
        "less than a third of is missing from the guide: ln Z is low by that weight, and averages are those of the "
        "other sectors. One that the guide fills and no chain ever visits says the same of the chains.",
    ),
    "topology-frozen": Explanation(
        "Hamiltonian chains never change the topological charge",
        "Between sectors lie configurations with a plaquette near -1, which small steps hardly cross at weak coupling. "
        "The model has weight in other sectors and no chain of the mode check left its own, so ⟨Q²⟩ of a chain would "
        "be that of its start. Averages of the guide do not rest on the chains: it draws sectors directly.",
    ),
    "annealing-too-fast": Explanation(
        "populations that were annealed apart from each other disagree",
        "`vdsl sample --method smc` carries independent populations from a known density to the model's. Each gives an "
        "unbiased estimate of Z; where few of them hold most of the sum, ln Z is low more often than its error says. "
        "Give more moves to each level (`--thin`), or more samples to each population.",
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
        "no exact method for a continuous field",
        "Exact answers sum over states: those of `spin`, `potts(q)`, `clock(q)` and `occupation`, or the nodes of a "
        "quadrature for `real`, `real[n]`, `complex`, `angle`, `U(1)`, `sphere(2)` and `sphere(3)`. Other fields have "
        "none. Use `vdsl solve`, or `vdsl sample` for an independent Markov chain. The exit code is 4.",
        "field U : SU(3)     # vdsl exact",
    ),
    "not-normalisable": Explanation(
        "ln Z is infinite: the energy does not grow in every direction",
        "Along the mode or the field that the diagnostic names the energy is flat, or falls. A free field without a "
        "mass on a periodic lattice is flat along the uniform mode. Hold the mean in place with a mass or a wall, or "
        "add a power that bounds the energy. The exit code is 3.",
        "interaction kinetic = sum(<i, j> in nn: (phi[i] - phi[j])^2)     # vdsl exact",
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
    # Names
    "unknown-name": Explanation(
        "a name that nothing declares",
        "Values are parameters, `let`s, data, fields, observables and the variables of the reductions around them. The "
        "order of statements does not matter. An observable may also use the name of an interaction for its energy.",
        "interaction e = -coupling * sum(i in sites: s[i])     # no `param coupling`",
    ),
    "unknown-function": Explanation(
        "a function that is neither built in nor declared with `fn`",
        "A name followed by a bracket is a call; multiplication is always written `*`. Built-in functions are listed "
        "in the language reference.",
        "let a = coss(1)",
    ),
    "unknown-set": Explanation(
        "what stands after `in` or `on` is not a set of this lattice",
        "Every lattice has `sites` and its bonds by name (`nn`, `nnn`, or those of the unit cell). Lattices with axes "
        "also have `links`, `axes`, `planes`, `plaquettes` and `shell(k)`. `pairs(sites)` holds every pair of sites "
        "once, `range(n)` the integers below n.",
        "sum(<i, j> in nnb: s[i] * s[j])",
    ),
    "unknown-lattice": Explanation(
        "a kind of lattice that is not known",
        "Built in are chain, square, triangular, honeycomb, kagome, cubic, bcc, fcc, hypercubic, complete and graph. "
        "Any other is described by its unit cell: `lattice NAME { vectors … site … bond … size = … }`.",
        "lattice sqare(8, 8)",
    ),
    "unknown-type": Explanation(
        "a field or parameter type that is not known",
        "Fields are spin, potts(q), clock(q), occupation, real, real[n], complex, angle, sphere(n), U(1), SU(2) or "
        "SU(3). Parameters are real unless declared `: int`.",
        "field s : spn",
    ),
    "unknown-field": Explanation(
        "a claim about a field that the model does not have",
        "A symmetry names the fields that it acts on.",
        "symmetry z2(t)",
    ),
    "unknown-distribution": Explanation(
        "a distribution that is not known",
        "Random data are drawn by `normal(mean, sd)`, `uniform(a, b)`, `sign()` (±1), `bernoulli(p)` (0 or 1), "
        "`integers(a, b)` (b not included) or `choice(a, b, …)`.",
        "data J on nn ~ gauss(0, 1) seed 1",
    ),
    "unknown-option": Explanation(
        "an option that this statement does not have",
        "The options are listed with the message. A lattice has `boundary`; data from a file `default`, `array` and "
        "`type`; random data `shape` and `type`; `train` has `steps`, `batch`, `time_limit` (seconds), `samples`, "
        "`seed`, `learning_rate` and `estimator`.",
        "lattice square(8, 8, bondary = open)",
    ),
    "unknown-parameter": Explanation(
        "a value was given for a parameter that the model does not declare",
        "`--set NAME=VALUE` and keyword arguments of `load` must name a `param` of the file. The exit code is 2.",
        "vdsl solve ising.vfe --set j=1     # the parameter is J",
    ),
    "unknown-symmetry": Explanation(
        "a symmetry that is not known",
        "Claims are `z2(s)`, `translation`, `permutation(s)`, `shift(theta)`, `rotation(S)` and `gauge(U)`. Several "
        "fields move together, `shift(a, b)`; a claim without fields means all that it is usually made of.",
        "symmetry z3(s)",
    ),
    "duplicate-name": Explanation(
        "a name is declared twice, or a variable hides another",
        "Values, functions, sets and interactions each have names of their own, declared once. A variable of a "
        "reduction may hide a top-level name, but not another variable.",
        "sum(i in sites: sum(i in sites: s[i]))",
    ),
    "duplicate-statement": Explanation(
        "a second statement of a kind that a model has once",
        "A model has one lattice and one temperature, and at most one `model`, `guide` and `train`.",
    ),
    "reserved-name": Explanation(
        "a name that the language has taken",
        "`pi`, `inf`, `true` and `false` are constants; functions cannot be called like built-in ones, nor bonds like "
        "built-in sets. The words that begin statements are free: a parameter may be called `model`.",
        "param pi = 3",
    ),
    "cycle": Explanation(
        "declarations that need each other",
        "Each value must be computable from others without coming back to itself, and a function cannot call itself. "
        "The message names the loop.",
        "let a = b + 1\nlet b = a",
    ),
    "unused": Explanation(
        "a warning: a parameter, constant or data set that nothing uses",
        "It has no effect on the result. Often a name was misspelt somewhere else.",
    ),
    "unused-field": Explanation(
        "a field that no expression uses",
        "Such a field would add ln of its volume to ln Z for every site, and is almost always a mistake.",
    ),
    "missing-lattice": Explanation(
        "the model has no lattice", "Add one, for example `lattice square(16, 16)`.", "lattice square(16, 16)"
    ),
    "missing-field": Explanation("the model has no field", "Add one, for example `field s : spin`.", "field s : spin"),
    "missing-interaction": Explanation(
        "the model has no interaction",
        "The energy is the sum of the interactions; there must be at least one.",
        "interaction exchange = -sum(<i, j> in nn: s[i] * s[j])",
    ),
    "missing-temperature": Explanation(
        "the model has no temperature",
        "It is never assumed. A model written as an action has `temperature 1`.",
        "temperature 1",
    ),
    "not-supported-yet": Explanation(
        "a part of the language that is reserved",
        "The syntax is fixed, and models that use it will run unchanged once it is supported.",
        "particles atom : N in periodic_box(L, L, L)",
    ),
    # Parameters and sizes
    "bad-override": Explanation(
        "a value given for a parameter is not of its type",
        "An `: int` parameter takes an integer without a decimal point, others a real number. The exit code is 2.",
        "vdsl solve ising.vfe --set L=2.5",
    ),
    "missing-parameter": Explanation(
        "a parameter without a default was not given a value",
        "Give it with `--set NAME=VALUE`, as a keyword of `load`, or write a default. The exit code is 2.",
        "param L : int",
    ),
    "out-of-range": Explanation(
        "a number outside the range where it makes sense",
        "A parameter's range is enforced wherever a value enters: defaults, `--set`, scans, Python. Without a range a "
        "parameter must be finite. Sizes are at least 1. The exit code is 2 for a value given from outside.",
        "param T = -1.0 in (0, inf)",
    ),
    "bad-range": Explanation(
        "a range that holds no number",
        "A range is `[a, b]`, `(a, b)`, `[a, b)` or `(a, b]` with a below b; its ends are known when compiling.",
        "param J = 1 in [2, 1]",
    ),
    "not-static": Explanation(
        "a size depends on something that is not known when compiling",
        "Sizes, ranges, seeds and subscripts are built from numbers and `: int` parameters. Real parameters stay "
        "variable, so that a sweep never recompiles.",
        "param L = 4.0\nlattice square(L, L)",
    ),
    "not-an-integer": Explanation(
        "a real number where an integer is needed",
        "`/` always gives a real number, and so do a decimal point and an exponent. `//` divides integers.",
        "lattice square(L / 2, L)",
    ),
    "wrong-arguments": Explanation(
        "a call with the wrong number of arguments",
        "Functions, sets, distributions, lattices and types each take a fixed number of arguments; the message "
        "says how many were expected and how many were found.",
        "cos(1, 2)",
    ),
    "bad-boundary": Explanation(
        "a boundary that is not one of periodic, open, antiperiodic",
        "One word is for all axes; a tuple has one word per axis.",
        "lattice square(8, 8, boundary = (periodic, open))",
    ),
    "bad-unit-cell": Explanation(
        "a unit cell that does not fit together",
        "A unit cell has `vectors` (linearly independent), at least one `site` in fractions of them, `bond`s between "
        "its sites with a displacement in whole cells, `group`s of bonds, and a `size` with one entry per vector.",
    ),
    "bad-graph": Explanation(
        "a file of edges that is not a simple graph",
        "Each row gives the numbers of two different sites, counted from 0; each edge appears once, in either "
        'direction. A header row is allowed. `graph(from "edges.csv", N)` sets the number of sites.',
    ),
    "bond-multiplicity": Explanation(
        "a warning: a torus so small that bonds meet themselves or one another",
        "Bonds are counted as the torus has them. With L = 2 along a periodic axis the bond to the right and the bond "
        "from the left join the same two sites, and the pair counts twice; with L = 1 a site is joined to itself. "
        "Some authors count such pairs once: compare with care, or use `boundary = open`.",
        "lattice square(2, 8)",
    ),
    "antiperiodic-field": Explanation(
        "an antiperiodic boundary and a field whose values have no negative",
        "Across an antiperiodic boundary a value x is reached as −x, which a Potts colour, an occupation or an SU(3) "
        "matrix does not have.",
        "lattice square(8, 8, boundary = antiperiodic)\nfield s : potts(3)",
    ),
    # Data
    "path-not-allowed": Explanation(
        "a data file outside the model's directory",
        "A model reads files beside itself only: no absolute path, no `..`, no link that leads out. So a model from "
        "someone else is safe to run. `--allow-path`, or `allow_path=True`, lifts this.",
        'data J on nn from "/etc/passwd"',
    ),
    "file-not-found": Explanation(
        "a file that cannot be read", "Data files are looked up beside the model.", 'data J on nn from "J.csv"'
    ),
    "bad-data-file": Explanation(
        "a data file of another format",
        "Data come as .csv (commas or blanks, a header row is allowed, UTF-8), .npy, or .npz with one array or the "
        'name of one: `{ array = "J" }`. Files that hold Python objects are never opened.',
    ),
    "data-size": Explanation(
        "a data file that does not have one value per element of its set",
        "The message gives both sizes. For values that are zero wherever there is no row, add `{ default = 0 }`.",
    ),
    "data-row": Explanation(
        "a row of a data file that does not fit",
        "Rows are `i, value` for sites, `i, j, value` for bonds (either direction), `i, axis, value` for links, with "
        "sites numbered from 0, the last axis fastest; each element appears once.",
    ),
    "data-value": Explanation(
        "a number among the data that cannot be there",
        "Every number must be finite. Data that are declared as values of a field's type must lie in it: spins are -1 "
        "or 1, unit vectors have length 1 (to 1e-6), angles lie in (-pi, pi].",
        'data n on sites from "directions.csv" { type = sphere(3) }',
    ),
    "missing-seed": Explanation(
        "random data without a seed",
        "Random numbers are drawn from a seed, so that a model is the same everywhere and for ever.",
        "data J on nn ~ normal(0, 1) seed 1",
    ),
    # Kinds
    "kind-mismatch": Explanation(
        "a value of the wrong kind",
        "Values are truth values, integers, real and complex numbers, vectors, matrices, sites, axes, links and "
        "plaquettes. Nothing is converted in silence, except integers to real and real to complex numbers.",
        "s[x + y]     # a site plus a site",
    ),
    "shape-mismatch": Explanation(
        "vectors or matrices whose shapes do not go together",
        "Nothing is broadcast. A number times a vector is fine, a vector plus a number is not; `dot(a, b)` is the "
        "scalar product. The message gives both shapes.",
        "S[i] * S[j]     # write dot(S[i], S[j])",
    ),
    "bad-index": Explanation(
        "brackets that do not say which value",
        "A field on sites takes a site, one on links a site and an axis; then, for vectors and matrices, integers. "
        "Data take what their set needs: a site, a link, the two ends of a bond, or plain integers.",
        "J[i]     # write J[i, j]",
    ),
    "index-out-of-range": Explanation(
        "a subscript that never exists", "Everything is numbered from 0.", "S[i, 3]     # of a vector of 3"
    ),
    "wrong-bonds": Explanation(
        "data of one set of bonds, read at the bonds of another",
        "The set of the reduction must be part of the set that the data live on.",
        "data J on nn ~ normal(0, 1) seed 1\ninteraction e = sum(<i, j> in nnn: J[i, j])",
    ),
    "not-a-real-number": Explanation(
        "an interaction, observable or temperature that is not one real number",
        "Reduce over the lattice with `sum` or `mean`, take `re(…)` of a complex number, `dot` or `norm` of vectors.",
        "interaction w = sum(p in plaquettes: tr(loop(U, p)))     # write re(tr(…))",
    ),
    "wrong-place": Explanation(
        "something that cannot be used in this kind of statement",
        "Constants and the temperature cannot depend on fields; interactions cannot use observables; derived "
        "quantities use averages only.",
        "let m = mean(i in sites: s[i])     # write observable m = …",
    ),
    "expect-outside": Explanation(
        "a thermal average where none can be taken",
        "`expect(…)` stands in `derived` statements, not inside another `expect`. Observables are averaged anyway.",
    ),
    "bad-binder": Explanation(
        "the number of variables does not fit the set",
        "`i in sites`, `mu in axes`, `<mu, nu> in planes`, `<i, j> in nn`, `p in plaquettes` or `<x, mu, nu> in "
        "plaquettes`, `l in links` or `<x, mu> in links`, `k in range(n)`.",
        "sum(i in nn: s[i])",
    ),
    "bad-set": Explanation(
        "a set that cannot be used here",
        "Fields live on `sites` or `links`; data on sites, links or bonds; pairs are taken of `sites`.",
        "field t : spin on nn",
    ),
    "empty-set": Explanation(
        "the mean, maximum or minimum over nothing", "Only `sum` (0) and `prod` (1) of nothing exist."
    ),
    "division-by-zero": Explanation("a division by zero, known when compiling", "The caret shows the division."),
    "domain": Explanation(
        "a function outside its domain, known when compiling",
        "Real functions of real numbers stay real: the square root or logarithm of a negative number is an error.",
        "let a = sqrt(-1)",
    ),
    "overflow": Explanation(
        "a number larger than a double can hold",
        "Integers are exact up to 2^63 and become doubles beyond; doubles end at 1.8e308.",
        "let a = 9^9^9",
    ),
    "bad-temperature": Explanation(
        "a temperature that is not positive and finite", "It is in energy units: k_B = 1.", "temperature 0"
    ),
    "exact-comparison": Explanation(
        "a warning: a continuous field tested for equality",
        "The probability that it equals anything exactly is zero, so the test never holds. Compare with a tolerance.",
        "delta(phi[i], 0)",
    ),
    "unbounded-energy": Explanation(
        "the energy falls without end in a real field, or does not depend on a shift of it",
        "Along some ray of configurations the energy is a polynomial whose highest power has a negative coefficient or "
        "an odd degree, or it is the same everywhere; so ln Z is infinite. The rays that are tried are uniform, "
        "staggered, of a single site and random, with all parameters at their defaults. Only what is certain is "
        "reported, as a warning; a Gaussian guide that meets a direction without bound stops with the same code.",
        "interaction v = -sum(x in sites: phi[x]^4)",
    ),
    # Claims, sweeps and settings
    "wrong-symmetry": Explanation(
        "a symmetry that does not act on such a field, or on such fields together",
        "`z2` changes the sign of a field, or exchanges its two states; `permutation` mixes the states of a discrete "
        "field; `shift` adds a constant to numbers, angles and phases, and moves the states of a discrete field round; "
        "`rotation` turns vectors and angles; `gauge` acts on angles, signs and group elements on links, and on the "
        "matter on sites that couples to them. Fields named in one claim are moved by one group element, so their "
        "types must fit. A graph has no translations.",
        "field s : spin\nsymmetry rotation(s)",
    ),
    "not-a-twist": Explanation(
        "the helicity modulus of a field whose energy is not a function of differences",
        "`helicity(theta)` differentiates the energy with respect to a uniform twist. Every element of every sum that "
        "reads the field must stay the same when all the values it reads turn by the same angle, and must read them at "
        "known distances: along bonds or axes, not over all pairs or at numbered sites. Terms that break the rotation "
        "(a field h cos(theta)) leave no helicity modulus; functions with kinks (`wrap`, `abs`, `max`) have no second "
        "derivative. Write a scalar product with `dot`, not as sums over components in terms of their own.",
        "interaction zeeman = -h * sum(i in sites: cos(theta[i]))\nderived Y = helicity(theta)",
    ),
    "bad-scan": Explanation(
        "a sweep that is not a list of numbers",
        "`scan T = linspace(first, last, how many)`, `range(start, stop, step)` of integers, or `[…]`.",
        "scan T = linspace(1, 3)",
    ),
    "bad-option": Explanation(
        "the value of an option is of the wrong kind",
        "The message says what the option takes. Numbers and strings must be known when compiling.",
        "train { steps = -1 }",
    ),
    "open-loop": Explanation(
        "a trace of links that do not form a closed loop",
        "`U[x, mu]` leads from x to x + mu, and its adjoint back. The factors of a product under `tr` must join end to "
        "start, and the last must lead back to where the first began; otherwise the trace turns under gauge "
        "transformations. An interaction made of it has no gauge symmetry, and an observable averages to zero. It is "
        "an error where the model claims `symmetry gauge`, and a warning elsewhere.",
        "tr(U[x, mu] * U[x, nu])     # U[x, nu] starts at x, where U[x, mu] began, not at x + mu where it ended",
    ),
    "symmetry-violated": Explanation(
        "a claimed symmetry changes the energy",
        "Every `symmetry` claim is tried on random configurations before anything relies on it: each interaction must "
        "have the same energy before and after a random element of the group. The message names the first interaction "
        "that does not, and the two energies. A translation is claimed along every axis, so an open or antiperiodic "
        "boundary violates it. The claim is tried at the parameters of the run: a field of exactly 0 breaks nothing.",
        "interaction zeeman = -0.1 * sum(i in sites: s[i])\nsymmetry z2(s)",
    ),
    "symmetry-unchecked": Explanation(
        "a claimed symmetry was not tried, because the model is too large",
        "Claims are tried on random configurations by a slow and independent evaluator, for a second or two at most. "
        "Check the model at a smaller size, `vdsl check FILE --set L=8`; a symmetry seldom depends on the size.",
    ),
    "no-bond": Explanation(
        "data on bonds are read at two sites that no bond of the set joins",
        "`J[i, j]` looks up the bond that joins i and j, in either direction. Read it at the ends of a bond of its own "
        "set, `<i, j> in nn`, or restrict the reduction with `where`.",
        "data J on nn ~ normal(0, 1) seed 1\ninteraction e = sum(<i, j> in nnn: J[i, j] * s[i] * s[j])",
    ),
    "unsupported-support": Explanation(
        "a field has no counterpart in the library that the model is handed to",
        "`model.to_numpyro()` gives every field a sample site with its base measure. NumPyro has none for SU(3) "
        "matrices; `model.log_density` is an ordinary JAX function that other samplers can use. `vdsl sample --method "
        "nuts` needs fields that real numbers without bounds describe: no discrete ones; `--method hmc` moves all.",
    ),
    "no-lattice": Explanation(
        "a reduction over sites, bonds or axes in a model without a lattice",
        "Declare one: `lattice square(L, L)`.",
        "interaction e = sum(i in sites: 1)",
    ),
    # Runs, guides and commands
    "bad-checkpoint": Explanation(
        "a checkpoint is damaged, or belongs to another model",
        "A run continues only from what it saved itself, under the same model, data and settings. Nothing was "
        "changed; start the run again, or give the directory of another one. The exit code is 2.",
    ),
    "bad-result": Explanation(
        "a result file is damaged or of another format",
        "`result.json` is written by `vdsl solve` and read by `vdsl report`. Run the model again if it was edited or "
        "cut short. The exit code is 2.",
    ),
    "disk-full": Explanation(
        "there is no room left on the disk",
        "What was saved before is intact. Free some space and continue with `vdsl resume`. The exit code is 4.",
    ),
    "resource-limit": Explanation(
        "the machine ran out of memory or of open files",
        "Use a smaller lattice or a smaller `--batch`. The exit code is 4.",
    ),
    "unwritable": Explanation(
        "a file or directory cannot be used",
        "The message gives the reason of the operating system. The exit code is 2.",
    ),
    "out-exists": Explanation(
        "the output exists already", "Nothing is overwritten unless `--force` is given. The exit code is 2."
    ),
    "run-busy": Explanation(
        "another process is working on this run", "Wait for it to end, or choose another `--out`. The exit code is 2."
    ),
    "not-a-run": Explanation(
        "a directory that is not a run",
        "A run directory is what `vdsl solve` says it saved to, for example runs/ising-1. The exit code is 2.",
    ),
    "other-versions": Explanation(
        "a warning: a run continues under other versions of the software",
        "The numbers may differ in the last digits from what an uninterrupted run would have given.",
    ),
    "bad-setting": Explanation(
        "a setting of the training that cannot work", "The message says which, and why. The exit code is 2."
    ),
    "cannot-amortise": Explanation(
        "one guide cannot serve all points of this sweep",
        "`--amortise` trains one guide for all values of a real parameter. A parameter that sizes the model (`: int`) "
        "changes what there is to train, and a coupling that vanishes at some points changes the interactions. "
        "The exit code is 2.",
    ),
    "no-guide": Explanation(
        "no guide serves a field of this type",
        "Guides exist for discrete, real, complex, angle, U(1) and sphere fields, and for SU(2) and SU(3) on links "
        "with a gauge-invariant energy. The notes say what each guide lacks for the model as a whole.",
    ),
    "unknown-guide": Explanation(
        "a guide that is not known",
        "The guides are listed with the message; without `--guide` the best one is chosen from the model.",
    ),
    "guide-cannot-serve": Explanation(
        "a guide that does not fit the model",
        "The message says what it needs. Without `--guide` one that fits is chosen.",
    ),
    "method-cannot-serve": Explanation(
        "a sampling method that does not fit the model", "The message says what it needs; local updates always apply."
    ),
    "no-blackjax": Explanation(
        "`--method blackjax` needs BlackJAX", 'Install it with `pip install "vdsl[blackjax]"`. The exit code is 2.'
    ),
    "no-matplotlib": Explanation(
        "plots need matplotlib", 'Install it with `pip install "vdsl[plot]"`. The exit code is 2.'
    ),
    "usage": Explanation(
        "the command line is not understood",
        "The message says what was expected. `vdsl --help` lists the commands. The exit code is 2.",
    ),
}
