"""Gold answers in the shapes of MATH, Omni-MATH, DeepScaleR, AIME and GSM8K: each line one answer in its usual forms.

Neighbouring lines are other answers, most of them near misses.
"""

from __future__ import annotations

SAME: list[tuple[str, ...]] = [
    # whole numbers, decimals, fractions, percentages, money
    ("18", "18.0", "\\$18", "18 \\text{ dollars}", "018"), ("81",), ("-18", "−18", "- 18"),
    ("1,250", "1250", "1{,}250", "1\\,250", "1,\\!250"), ("1.25", "\\frac54", "1\\frac14", "5/4"), ("125",),
    ("11,\\! 111,\\! 100", "11111100"), ("1111100",), ("0.47 \\\\", "0.47", ".47", "\\frac{47}{100}"), ("0.48",),
    ("\\frac{7}{12}", "7/12", "\\tfrac7{12}", "\\dfrac{14}{24}"), ("\\frac{12}{7}",),
    ("-\\frac{7}{12}", "\\frac{-7}{12}"), ("12.5\\%", "0.125", "\\frac18"), ("1.25\\%",),
    ("3\\frac{1}{3}", "\\frac{10}{3}", "3 1/3"), ("\\frac{3}{3}", "1"), ("0.\\overline{27}", "\\frac{3}{11}"),
    ("0.27",), ("6.02 \\times 10^{23}", "6.02e23"), ("6.02 \\times 10^{22}",), ("\\$1.50", "1.5"), ("15",),
    ("025", "25"), ("250",),
    # powers, roots, pi, e, logarithms, sines
    ("2^{10}", "1024"), ("2^{11}",), ("\\sqrt{50}", "5\\sqrt2", "5 \\sqrt 2", "5\\sqrt{2}"),
    ("2\\sqrt5", "\\sqrt{20}"), ("\\frac \\pi4 + 2 - \\sqrt2", "2 - \\sqrt{2} + \\frac{\\pi}{4}"),
    ("\\frac \\pi4 + 2 + \\sqrt2",), ("2007 + \\frac\\pi 2", "\\frac{\\pi}{2} + 2007"), ("2007 - \\frac\\pi 2",),
    ("\\frac{\\sqrt 3}2", "\\frac{3}{2\\sqrt3}"), ("\\frac{\\sqrt 2}2", "\\frac{1}{\\sqrt2}", "\\sqrt{\\frac12}"),
    ("\\sqrt[3]{16}", "2\\sqrt[3]{2}"), ("2\\sqrt[3]{4}",), ("\\sqrt[3]{-8}", "-2"),
    ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"), ("1-\\sqrt2",), ("\\frac{1}{1-\\sqrt2}", "-1-\\sqrt2"),
    ("\\frac{1}{e}", "e^{-1}", "1/e"), ("\\frac{1}{e^2}", "e^{-2}"), ("\\ln 8", "3\\ln 2", "\\ln(8)"),
    ("2\\ln 3", "\\ln 9"), ("\\log_2 3", "\\frac{\\ln 3}{\\ln 2}"), ("\\log_3 2",),
    ("100\\pi", "100 \\pi \\text{ cm}^2"), ("10\\pi",), ("\\sin 15^\\circ", "\\frac{\\sqrt6-\\sqrt2}{4}"),
    ("\\cos 15^\\circ", "\\frac{\\sqrt6+\\sqrt2}{4}"), ("\\arctan 2",),
    ("\\frac{3+\\sqrt{5}}{2}", "\\left(\\frac{1+\\sqrt5}{2}\\right)^2"), ("\\frac{3-\\sqrt{5}}{2}",),
    ("\\frac{1+\\sqrt5}{2}",), ("\\sqrt{2}+\\sqrt{3}", "\\sqrt{5+2\\sqrt6}"), ("\\sqrt5",),
    ("4^{1/3}", "\\sqrt[3]{4}", "2^{\\frac23}"), ("4^{-1/3}",), ("\\binom{10}{3}", "120", "5!"),
    ("\\binom{10}{4}", "210"), ("2004!",), ("2005!",), ("\\frac{1}{2004!}",),
    ("1 + \\frac{1}{\\sqrt{2}}", "\\frac{2+\\sqrt2}{2}"), ("1 - \\frac{1}{\\sqrt{2}}",), ("2^{2019} - 1",),
    ("2^{2019} + 1",),
    # formulas with letters
    ("a + b + c", "c+b+a"), ("a + b - c",), ("\\sin^2 t", "1-\\cos^2 t"), ("\\cos^2 t", "1-\\sin^2 t"),
    ("x^2+2x+1", "(x+1)^2"), ("x^2-2x+1", "(1-x)^2"), ("7+2t", "2t+7"), ("7+2s",), ("2x+3c", "3c+2x"), ("2x+3d",),
    ("m + y", "y+m"), ("y",), ("\\pi r^2 h", "\\pi h r^2"), ("\\pi r^2",),
    ("\\frac{n(n+1)}{2}", "\\frac{n^2+n}{2}", "\\binom{n+1}{2}"), ("\\frac{n(n-1)}{2}", "\\binom{n}{2}"), ("2^n-1",),
    ("2^{n-1}", "\\frac{2^n}{2}"), ("x^3-1", "(x-1)(x^2+x+1)"), ("x^3+1",), ("\\frac{x+1}{x-1}", "1+\\frac{2}{x-1}"),
    ("\\frac{x-1}{x+1}",), ("|x-5|", "\\lvert 5-x\\rvert"), ("x-5",), ("5-x", "-(x-5)"),
    ("\\lfloor \\frac{n}{2} \\rfloor", "\\left\\lfloor \\frac n2\\right\\rfloor"), ("\\lceil \\frac{n}{2} \\rceil",),
    ("\\sqrt{a^2+b^2}",), ("a+b",), ("\\frac{a}{b+c}",), ("\\frac{a}{b}+c",), ("x^{2n}", "(x^n)^2"),
    ("x^{n+2}", "x^n x^2"), ("-3x^2y", "-3yx^2"), ("-3xy^2",), ("\\frac{1}{2}gt^2", "\\frac{gt^2}{2}"),
    ("\\frac12 gt",), ("mc^2",), ("E=mc^3",),
    ("\\cosh(at)", "\\frac{1}{2}(e^{at}+e^{-at})"), ("\\sinh(at)", "\\frac{e^{at}-e^{-at}}{2}"),
    ("e^{at}",), ("e^{-at}",),
    # imaginary unit
    ("2i", "(1+i)^2"), ("-2i", "(1-i)^2"), ("3+4i", "4i+3", "(2+i)^2"), ("3-4i", "(2-i)^2"), ("i^2", "-1"),
    ("-i", "\\frac1i"), ("\\frac{1}{2} + \\frac{\\sqrt3}{2}i", "e^{i\\pi/3}", "\\frac{1+i\\sqrt3}{2}"),
    ("\\frac{1}{2} - \\frac{\\sqrt3}{2}i",),
    # names, equations, inequalities
    ("x = 5", "5"), ("x = -5", "-5"), ("y = 2x+1", "2x+1"), ("y = 2x-1",), ("x^2+y^2=4", "y^2+x^2=4"), ("x^2-y^2=4",),
    ("x \\le 3", "x \\leq 3"), ("x < 3",), ("x \\ge 3",), ("2 < x < 5",), ("2 \\le x < 5", "[2,5)"), ("4x-5y=-50",),
    ("4x+5y=-50",), ("f(x) = x^2", "x^2"), ("f(x) = x^3", "x^3"), ("f(x)=x+c",), ("k \\in \\{1, 2\\}", "\\{1,2\\}"),
    ("m+n=7", "7"),
    # tuples, sets, intervals, lists, vectors, matrices
    ("(2, 5)", "\\left(2,5\\right)", "(2.0, 5)"), ("(5, 2)",), ("\\{2, 5\\}", "\\{5,2\\}", "2, 5"), ("\\{2, 6\\}",),
    ("[2, 5]",), ("[2, 5)", "\\left[2,5\\right)"), ("(2, 5]",), ("(-\\infty, 2)",), ("(-\\infty, 2]",),
    ("(-\\infty,2)\\cup(3,\\infty)",), ("(-\\infty,2]\\cup[3,\\infty)",), ("(1, 2, 3)",), ("(1, 2, 4)",),
    ("1, 2, 3", "3, 1, 2"), ("1, 2, 4",), ("\\pm 3", "3, -3"), ("\\pm 2", "2,-2"),
    ("1 \\pm \\sqrt2", "1+\\sqrt2, 1-\\sqrt2"), ("2 \\pm \\sqrt2",), ("\\emptyset", "\\varnothing", "∅"), ("\\{0\\}",),
    ("(0,0), (1,1)",), ("(0,0), (1,2)",), ("\\left( \\frac{1}{2}, \\sqrt{3} \\right)", "(0.5,\\sqrt3)"),
    ("\\left( \\frac{1}{2}, \\sqrt{2} \\right)",), ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",),
    ("\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}",),
    ("\\begin{pmatrix} 1 & 2 \\\\ \\phantom{-}3 & 4 \\end{pmatrix}", "\\begin{bmatrix} 1&2\\\\3&4 \\end{bmatrix}"),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & -4 \\end{pmatrix}",), ("3 \\text{ and } 5", "3,5", "5 \\text{ and } 3"),
    ("3 \\text{ and } 6",),
    # words, choices, hours, bases, ratios, angles
    ("\\text{Evelyn}", "Evelyn", "evelyn"), ("\\text{Evan}",), ("\\text{(C)}", "C", "(C)"), ("(D)", "D"),
    ("\\text{June 20}", "June 20"), ("\\text{June 21}",), ("\\text{even}",), ("\\text{odd}",),
    ("\\text{no solution}", "No solution."), ("\\text{11:30 a.m.}", "11:30 am"),
    ("\\text{11:30 p.m.}", "11:30 pm", "23:30"), ("4210_5", "4210_{5}"), ("4210_6",), ("3:4", "3 : 4"), ("4:3",),
    ("1:2:3",), ("1:3:2",), ("60^\\circ", "60°", "60"), ("30^\\circ",), ("\\text{Monday}",), ("\\text{Sunday}",),
    # only text can match them
    ("f(n) = n \\text{ for all } n \\in \\mathbb{N}", "f(n)=n\\text{ for all }n\\in\\mathbb N"),
    ("f(n) = 2n \\text{ for all } n \\in \\mathbb{N}",), ("\\mathbb{R}^+", "\\mathbb{R}^{+}"), ("\\mathbb{R}^-",),
    ("\\angle ABC",), ("\\angle ACB",), ("p \\equiv 1 \\pmod{4}", "p\\equiv1\\pmod 4"), ("p \\equiv 3 \\pmod{4}",),
    ("\\text{all } n \\text{ not divisible by } 6",), ("\\text{all } n \\text{ not divisible by } 7",),
    ("1, 3, 5, \\ldots, 2n-1", "1,3,5,\\dots,2n-1"), ("1, 3, 5, \\ldots, 2n+1",),
    ("\\boxed{\\frac{1}{2}}", "\\frac12"), ("2^{\\aleph_0}",), ("\\triangle ABC \\sim \\triangle DEF",),
]  # fmt: skip
