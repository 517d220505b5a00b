"""Answers of every kind of reference, right and wrong, each judged by hand."""

# reference: (right answers, wrong answers), all in a box.
CASES = {
    r"\frac{1}{3^{90}}": (
        [r"3^{-90}", r"\frac{1}{9^{45}}"],
        [r"\frac{2}{3^{90}}", r"-3^{-90}", "0"],
    ),
    r"\frac{1}{50!}": ([r"\frac{2}{2\cdot 50!}"], [r"\frac{1}{60!}", r"-\frac{1}{50!}", "0"]),
    "23": (
        [
            *["23~", r"23~\text{cm}", r"23 \mathrm{~cm}", r"23\mathrm{~m}/\mathrm{s}"],
            *["x_{1}=23"],
        ],
        [
            *["230", "32", "2 3", "23, 24", r"23\text{ or }24", "23!", "23i", "2.3", r"\pm23"],
        ],
    ),
    "42": (
        [
            *[r"\boldsymbol{42}", r"\bf 42", r"{\bf 42}", r"\color{blue}{42}"],
            *[r"\textcolor{red}{42}", r"\underline{42}", r"\textsf{42}", r"\large 42", "４２"],
            *["`42`", "m+n=42", "a+b+c=42", "f(2)=42", "P(3)=42", "|AB|=42", "AB=42"],
            *[r"\overline{AB}=42", "S_{10}=42", "a_{10}=42", "f^{-1}(3)=42", "[ABC]=42"],
            *[r"\frac{a}{b}=42", "42=x", r"\text{Area}=42", "x^2+y^2=42", "x=42.0"],
            *[r"n=\frac{84}{2}=42", "P(X=1)=42", "+42", r"42\text{ km/h}"],
            *[r"42\frac{\text{km}}{\text{h}}", r"42\text{ miles per hour}"],
            *[r"42\ \text{m}/\text{s}^2", r"42\text{ square units}", "4.2e1", r"\frac{126}{3}"],
        ],
        [
            *["x^2=42", "2x=42", "x+3=42", "x=42, y=43", "x=42=43", "42=42", "40+2=42", "6*7"],
            *[r"42\text{ thousand}", r"42\text{ squared}", r"42\text{ or more}"],
            *[r"42\text{ dozen}", r"42\text{ not }43", r"\text{forty-two}", "42-", "-42", "4e2"],
            *[r"42\approx 43", "a+b", r"42\cdot 1", r"\sqrt{1764}", "[42]", r"\{41,42\}"],
            *["(42,42)", "42x", "m+n"],
        ],
    ),
    "-8": (
        [
            *["{-}8", r"-\,8", r"-\left(8\right)", "−8", r"\text{-8}", "x = -8"],
            *[r"-\frac{16}{2}", "-8.00", "x_0=-8", r"-8^\circ", "(-8)", r"\mathbf{-8}", "－8"],
        ],
        [
            *["8", "8-", "|-8|", "-0.8", "- 8 1", r"\pm 8", "(-8,8)", "-8, 8", "-80", "+8"],
        ],
    ),
    r"54,\!321": (
        [
            *["54,321", "54 321", r"54\,321", "54~321", r"54\ 321", "54{,}321", r"\$54,321"],
            *["5.4321e4", r"5.4321\times10^4", r"54.321\text{ thousand}", r"54,\! 321"],
        ],
        [
            *["54, 321", "54.321", "54,320", "5,4321", "543,21", "321", "54", "54;321"],
            *["54 32 1"],
        ],
    ),
    "3,400,000": (
        [
            *[r"3.4\text{ million}", "3.4 million", "3400000", r"3.4\cdot10^6", "3.4E6"],
            *["3 400 000", r"3.4\text{ million dollars}", "3,400,000.0"],
        ],
        [
            *[r"3.4\text{ billion}", r"3.4\text{ thousand}", "34000000", "3.4", "3,400"],
            *[r"3.4\times10^5"],
        ],
    ),
    r"\$31,\!500": (
        [
            *[r"\$31,500", r"\$ 31,500", r"31500\text{ dollars}", "31,500", r"\$31{,}500.00"],
            *["$31,500$", r"31\,500", "31500 dollars"],
        ],
        [
            *[r"31500\text{ cents}", r"\$31.5", r"\$31,501", "315", r"\$31,500, \$31,600"],
        ],
    ),
    r"\$8.25": (
        [
            *[r"8.25\text{ dollars}", "8.25", r"\$8.250", r"\frac{33}{4}"],
        ],
        [
            *[r"8.25\text{ cents}", "8.2", "825", "8,25", r"825\text{ dollars}"],
        ],
    ),
    r"3.5 \text{ cents}": (
        [
            *["3.5", "3.50", r"3.5\text{ cents}", r"\frac72", "3.5 cents"],
        ],
        [
            *[r"3.5\text{ dollars}", r"\$3.5", "35", r"3.5\%", r"3.5\text{ euros}"],
        ],
    ),
    r"36\mbox{ cm}^2": (
        [
            *[r"36\text{ cm}^2", r"36 \mathrm{~cm}^{2}", r"36\text{ square centimeters}"],
            *["36 cm²", r"36\text{ cm$^2$}", r"36\text{ sq. cm}", r"36~\text{cm}^2"],
            *[r"36\text{ cm squared}"],
        ],
        [
            *[r"36\text{ cm}^3", r"36\text{ m}^2", "36^2", r"36\text{ inches}^2", "63"],
            *[r"6^2\text{ in}^2"],
        ],
    ),
    r"75^\circ": (
        [
            *["75", r"75\text{ degrees}", "75 degrees", "75°", r"75\,^\circ", r"75\degree"],
            *[r"75\text{°}", r"\angle ABC = 75^\circ", r"m\angle A=75^{\circ}"],
            *[r"\theta=75^\circ", r"75^{\circ }"],
        ],
        [
            *[r"75\text{ radians}", r"75^\circ\text{ or }105^\circ", "75^0", r"57^\circ"],
            *[r"75\%", "-75"],
        ],
    ),
    r"45\%": (
        [
            *[r"45\%", "45", "45%", r"45\text{ percent}", "45 percent", r"45\text{\%}"],
            *[r"45 \,\%"],
        ],
        [
            *[r"45\%\text{ to }50\%", "54", "4.5", r"45\text{ degrees}", r"45\%, 55\%"],
            *["0.0045"],
        ],
    ),
    "3.25": (
        [
            *["3 1/4", r"3\ \frac{1}{4}", r"3\frac14", "13/4", "3.250", r"3\dfrac{1}{4}", "3¼"],
            *["03.25"],
        ],
        [
            *["3.2", "3,25", "3.3", r"3\cdot\frac14", "3.26", "31/4", "3.25001", "325", "1 3/4"],
        ],
    ),
    ".0058": (
        [
            *["0.0058", "5.8e-3", "5.8E-3", r"5.8\times 10^{-3}", r"\frac{58}{10000}"],
            *["5.8*10^-3"],
        ],
        [
            *["5.8e3", "5.8e-4", "0.0059", ".00580001", r"5.8\times 10^{3}", "0.058", "5.8"],
        ],
    ),
    r"\frac{7}{12}": (
        [
            *["7/12", r"\dfrac7{12}", r"0.58\overline{3}", r"0.58\bar{3}", r"0.58\bar3"],
            *["0.58333...", r"0.58333\ldots", "{7}/{12}", r"\frac{\text{7}}{\text{12}}"],
            *[r"{7 \over 12}", "0.583333", r"\left(\frac{7}{12}\right)"],
            *[r"\frac{7}{12}\approx 0.583", r"P=\frac7{12}", "7÷12", r"P(A)=\frac{7}{12}"],
            *[r"p = \frac{14}{24} = \frac{7}{12}", r"\boldsymbol{\frac{7}{12}}"],
        ],
        [
            *["(7,12)", r"\frac{12}{7}", r"-\frac{7}{12}", r"0.\overline{583}", "0.58"],
            *["0.5833", r"7\frac{1}{12}", "7:12", r"\frac{7}{12}\pi"],
            *[r"\frac{7}{12}\approx 0.6583", "0.58...", r"\frac{7}{12}, \frac{5}{12}"],
            *[r"\frac{1}{2}+\frac{1}{12}", r"\frac7{12}\approx\frac35"],
        ],
    ),
    r"-\frac{5}{6}": (
        [
            *[r"-\left(\frac{5}{6}\right)", r"\frac{-5}{6}", r"\frac{5}{-6}", "-5/6"],
            *[r"-0.8\overline{3}", r"-\tfrac56", "-(5/6)", r"{-}\frac{5}{6}", "-0.833333"],
            *[r"-\frac{5}{6}\text{ units}"],
        ],
        [
            *["5/6", r"-\frac65", "-0.83", r"\frac{-5}{-6}", r"-5\frac16", "-1+1/6"],
            *[r"\pm\frac56"],
        ],
    ),
    r"6\frac{1}{3}": (
        [
            *["6 1/3", r"6~\frac{1}{3}", "19/3", r"\frac{19}{3}", r"6.\overline{3}"],
            *[r"6\frac13\text{ cups}"],
        ],
        [
            *[r"6\cdot\frac13", "61/3", "6.3", "2", r"\frac{6}{3}", "6, 1/3", "-6 1/3"],
        ],
    ),
    r"4\sqrt{7}": (
        [
            *[r"\sqrt{112}", r"\frac{28}{\sqrt7}", r"4\cdot7^{1/2}", "4√7", "4sqrt(7)"],
            *[r"4\sqrt[2]{7}", r"4\sqrt{7}\approx 10.58", r"x=4\sqrt7"],
            *[r"\boldsymbol{4\sqrt{7}}", "10.5830052", r"4\sqrt7\text{ cm}"],
            *[r"4 \sqrt{7} \mathrm{~cm}", r"|AB|=4\sqrt{7}", r"2\cdot2\sqrt{7}"],
        ],
        [
            *[r"7\sqrt4", "10.58", r"\sqrt{28}", r"\pm4\sqrt7", r"4\sqrt7\approx 11.58"],
            *[r"4^{\sqrt7}", r"4\sqrt{7}, 4\sqrt{8}", r"4\sqrt{7x}", r"\sqrt{4}\cdot7"],
            *[r"(4,\sqrt7)", r"-4\sqrt7"],
        ],
    ),
    r"36\pi": (
        [
            *[r"36\pi\text{ cubic inches}", r"36\pi \mathrm{~cm}^3", r"36{\pi}", "36pi", "36π"],
            *[r"V=36\pi", r"36\pi\approx 113.1", r"\frac{72\pi}{2}", r"36\cdot\pi"],
            *[r"36\pi\text{ cm}^3", r"6^2\pi", r"36\pi\,\text{square units}"],
            *[r"36 \pi ~\text{cm}^{2}", r"36\pi cubic inches"],
        ],
        [
            *[r"36\pi^2", "113.1", "36", r"36+\pi", "36p", r"\frac{36}{\pi}"],
            *[r"36\pi\approx 36", r"36\theta"],
        ],
    ),
    r"\frac{1}{2^{98}}": (
        [
            *["2^{-98}", r"\left(\frac12\right)^{98}", r"\frac{1}{2^{98}}", r"\frac{1}{4^{49}}"],
        ],
        [
            *[r"-\frac{1}{2^{98}}", r"\frac{1}{2^{97}}", "0", r"\frac{1}{3^{98}}"],
            *[r"\frac{1}{2^{99}}"],
        ],
    ),
    "e^{-40}": (
        [
            *[r"\frac{1}{e^{40}}", "e^{-20-20}"],
        ],
        [
            *["e^{-50}", "-e^{-40}", "e^{40}", "0"],
        ],
    ),
    "5x^2-2x+7": (
        [
            *["7-2x+5x^2", "y=5x^2-2x+7", "5x²-2x+7", "5 x^{2} - 2 x + 7", "f(x)=5x^2-2x+7"],
            *[r"5\cdot x^2-2\cdot x+7", "x(5x-2)+7", "5.0x^2-2x+7"],
        ],
        [
            *["5x^2+2x+7", "5y^2-2y+7", "5x^2-2x", "10", "5X^2-2X+7", "5x^2-2x+7=0", "x^2-2x+7"],
        ],
    ),
    r"\frac{2+7t}{20}": (
        [
            *["0.1+0.35t", "(2+7t)/20", r"\frac{1}{10}+\frac{7t}{20}", r"\frac{7t+2}{20}"],
            *["0.05(2+7t)"],
        ],
        [
            *["0.1+0.34t", r"\frac{2-7t}{20}", r"2+\frac{7t}{20}", r"\frac{9t}{20}"],
            *["0.10+0.3499999t"],
        ],
    ),
    "a - 2b": (
        [
            *["a-2b", "-2b+a", "-(2b-a)"],
        ],
        [
            *["2b-a", "a+2b", "a-b", "a-2c", "c=a-2a", "a+b=a-2b"],
        ],
    ),
    "(x-2)(y+6)": (
        [
            *["(y+6)(x-2)", r"(x-2)\cdot(y+6)"],
        ],
        [
            *["(x+2)(y-6)", "xy+6x-2y-12", "(x-2)(y-6)"],
        ],
    ),
    r"\sin x": (
        [
            *[r"\operatorname{sin} x", r"\sin(x)", r"\mathrm{sin}\,x", "sin x", "sin(x)"],
            *[r"\sin{x}"],
        ],
        [
            *[r"\cos x", r"\sin^2 x", r"\sin y", r"\csc x", r"-\sin x", r"\sin 2x"],
        ],
    ),
    "7-2i": (
        [
            *["7 - 2 i", "7+(-2)i", "7.0 + -2.0i", r"7-2\cdot i", "-2i+7", "z=7-2i"],
            *[r"7-2\mathrm{i}", "(7-2i)", r"7 - 2\,i", r"\overline{z}=7-2i"],
        ],
        [
            *["7+2i", "-7-2i", "2-7i", "5", "5i", "(7,-2)", "7-2", "7-2j", r"7\pm2i"],
        ],
    ),
    "y = 4x - 9": (
        [
            *["4x-y-9=0", "4x - 9 = y", "-9+4x", "y-4x=-9", r"y=4\left(x-\frac94\right)"],
            *["8x-2y=18"],
        ],
        [
            *["y=-4x-9", "x=4y-9", "y=4x+9", "4x=9", "y=4x-9, y=0", "y=y", r"y\ne4x-9"],
        ],
    ),
    "t=12": (
        [
            *["12", "t = 12", "12=t", "2t=24", "t-12=0"],
        ],
        [
            *["t=-12", "s=12", "12t", "t^2=12", r"t\ne12"],
        ],
    ),
    "(7,-2)": (
        [
            *["(x,y)=(7,-2)", "x=7, y=-2", r"x=7,\ y=-2", r"x=7\text{ and }y=-2", "y=-2,x=7"],
            *[r"\bigl(7,-2\bigr)", r"(7,\,-2)", "P=(7,-2)", "(7;-2)", r"\text{(7, -2)}"],
            *["(7.0,-2)", r"(a,b)=\left(7,-2\right)", "a=7,b=-2"],
            *[r"\left(\frac{14}{2},-2\right)"],
        ],
        [
            *["(-2,7)", "x=-2, y=7", "7,-2", "7", "(7-2)", "(7,-2,0)", "[7,-2]", r"\{7,-2\}"],
            *["x=7, x=-2", "(7,2)", "(x,y)=(-2,7)", "(7,-2), (7,2)"],
        ],
    ),
    r"\left(4, \frac{\pi}{3}\right)": (
        [
            *[r"(r,\theta)=(4,\frac{\pi}{3})", r"(4,\pi/3)", r"r=4,\theta=\frac{\pi}{3}"],
            *["(4,π/3)"],
        ],
        [
            *["(4,60)", r"(\frac{\pi}{3},4)", r"(4,\frac{\pi}{6})", r"\theta=4,r=\frac{\pi}{3}"],
        ],
    ),
    r"(-\infty, 9]": (
        [
            *[r"x\le9", r"9\ge x", r"\{x : x\le9\}", r"\{x \mid x\leq 9\}", "(-∞,9]"],
            *[r"x \leqslant 9", r"\left\{x\in\mathbb{R} : x\le9\right\}", r"(-\infty,9\rbrack"],
            *[r"-\infty<x\le9", r"x\in(-\infty,9]", r"\lambda\le9"],
        ],
        [
            *["x<9", "9", r"x\ge9", r"(-\infty,9)", r"(-9,\infty)", r"[9,\infty)", r"\{9\}"],
            *[r"(-\infty,-9]"],
        ],
    ),
    "(2,5]": (
        [
            *[r"2<x\le5", r"5\ge x>2", r"\{x: 2<x\leq5\}", r"x \in (2,5]", r"(2,\frac{10}{2}]"],
            *["2 < t ≤ 5"],
        ],
        [
            *["(2,5)", "[2,5]", "[2,5)", "2,5", r"x\le5", "2<x<5", "(5,2]", r"(2,5]\cup\{7\}"],
        ],
    ),
    r"(-\infty,-4)\cup(1,\infty)": (
        [
            *[r"x<-4\text{ or }x>1", r"(-\infty,-4)\bigcup(1,\infty)"],
            *[r"(1,+\infty)\cup(-\infty,-4)", r"x<-4 \lor x>1", r"(-\infty,-4), (1,\infty)"],
            *[r"x\in(-\infty,-4)\cup(1,\infty)", r"\{x: x<-4\text{ or }x>1\}"],
            *[r"(-\infty,-4)\text{ or }(1,\infty)"],
        ],
        [
            *[r"(-\infty,-4)\cap(1,\infty)", "(-4,1)", r"(-\infty,\infty)", r"(-\infty,-4)"],
            *["x<-4", r"(-\infty,-4]\cup[1,\infty)", r"(-\infty,1)\cup(-4,\infty)"],
            *[r"x<-4\text{ and }x>2"],
        ],
    ),
    "8, -3": (
        [
            *[r"8\text{ and }-3", r"\{8,-3\}", "-3, 8", "x=8, x=-3", "x_1=8, x_2=-3", "8;-3"],
            *["x=8,-3", r"x=8\text{ or }x=-3", r"\text{8 and -3}", r"x\in\{8,-3\}"],
            *[r"8,\quad -3", "8 and -3"],
        ],
        [
            *["8", "-3", "8, 3", "8,-3,0", "5", "(8,-3)", r"8\pm3", "8,8", "8-3", "[-3,8]"],
        ],
    ),
    r"2 \pm \sqrt{11}": (
        [
            *[r"x=2\pm\sqrt{11}", r"2+\sqrt{11}, 2-\sqrt{11}", r"\{2\pm\sqrt{11}\}", "2±√11"],
        ],
        [
            *[r"2+\sqrt{11}", r"2\pm\sqrt{12}", r"-2\pm\sqrt{11}", r"\pm(2+\sqrt{11})"],
            *[r"2+\sqrt{11},2"],
        ],
    ),
    r"\begin{pmatrix} 4 \\ -3/2 \end{pmatrix}": (
        [
            *[r"\left(\begin{array}{c}4\\-\frac32\end{array}\right)"],
            *[r"\begin{bmatrix}4\\-1.5\end{bmatrix}"],
            *[r"\left[\begin{array}{r}4\\[2pt]-3/2\end{array}\right]"],
            *[r"\begin{array}{c}4\\-3/2\end{array}"],
            *[r"\mathbf{v}=\begin{pmatrix}4\\-\frac{3}{2}\end{pmatrix}"],
            *[r"\begin{pmatrix}4\cr-3/2\end{pmatrix}"],
            *[r"\left(\begin{matrix}4\\-\tfrac32\end{matrix}\right)"],
        ],
        [
            *[r"\begin{vmatrix}4\\-3/2\end{vmatrix}", r"\begin{pmatrix}4&-3/2\end{pmatrix}"],
            *[r"\left|\begin{array}{c}4\\-3/2\end{array}\right|"],
            *[r"\begin{pmatrix}-3/2\\4\end{pmatrix}", r"\begin{array}{c}4\\3/2\end{array}"],
            *[r"\begin{pmatrix}4\\-3/2\\0\end{pmatrix}"],
        ],
    ),
    "561_9": (
        [
            *["561_{9}", "{561}_{9}", "(561)_9", r"561_{\text{9}}", r"561\text{ base }9"],
            *["561_{(9)}"],
        ],
        [
            *["561_8", "561", "651_9", "460", "561_{10}", "561.9"],
        ],
    ),
    r"\text{Marie}": (
        [
            *[r"\text{Marie.}", "marie", r"\mathrm{Marie}", r"\textbf{Marie}"],
            *[r"\text{ Marie }", "Marie"],
        ],
        [
            *[r"\text{Marie or Paul}", r"\text{Mario}", r"\text{not Marie}"],
            *[r"\text{Marie, Paul}", "Mary"],
        ],
    ),
    r"\text{circle}": (
        [
            *[r"\text{a circle}", r"\text{the circle}", r"\text{A circle.}", "circle"],
            *["a circle", "Circle"],
        ],
        [
            *[r"\text{an ellipse}", r"\text{two circles}", r"\text{semicircle}"],
            *[r"\text{no circle}", "c"],
        ],
    ),
    r"\text{(B)}": (
        [
            *["B", "(B)", r"\text{B}", r"\text{B.}", r"\textbf{(B)}\ 12", r"\text{(B) } 12"],
            *["B) 12", r"\mathrm{B}", r"\textbf{(B)}~\frac{1}{2}", r"\text{(B) blue}"],
            *[r"\mathbf{(B)}\,3,4"],
        ],
        [
            *["C", "12", r"\text{A or B}", r"\text{(B) or (C)}", r"\text{(A) } 12", "B, C"],
            *["(B)(C)", r"\text{not B}", r"\text{(B)(C)}", r"\text{(C) or (B)}"],
            *[r"\text{(B) is wrong}"],
        ],
    ),
    "17": (
        [
            *[r"17\ \text{cm}", r"\mathbf{17}", r"17\text{ units}^2", r"\text{17 cm}"],
            *[r"17\,\mathrm{m/s}", r"17\,\mathrm{m}\cdot\mathrm{s}^{-1}", r"\angle A = 17"],
            *["f(f(1))=17", "g(f(2))=17", "|x|=17", "x+y=17", "xy = 17", r"a\cdot b=17"],
            *["p+q+r = 17", r"\log_2 x = 17", r"17 \text{ (units)}", r"\approx 17"],
            *[r"x=17\text{ cm}", r"\$17", r"\left(17\right)", r"\lfloor x\rfloor = 17"],
            *[r"\text{Total} = 17", r"\text{The answer is }17", r"\color{red}17"],
            *[r"\frac{17}{1}", "017", r"17 \text{ square units}", "n=17.", r"17\,\text{cm}^{2}"],
            *[r"\textstyle 17", r"\mathrm{17}", r"17\ ", "17,", '"17"', r"\text{ }17"],
            *[r"17\hspace{2mm}\text{cm}", r"17\text{ people}", "x = 17,", "17", r"\boxed{17}"],
        ],
        [
            *["17^2", r"17\cdot 2", r"\frac{17}{3}", "17, 17.5", r"17\text{ and }18", r"17\pi"],
            *[r"17\sqrt2", "-17", "1 7", "17,000", r"17\text{ hundred}", "x>17", r"x\neq 17"],
            *[r"17\le x", "(17,0)", r"\{16,17\}", "17+x", r"\sqrt{17}", "17e1", "0.17"],
            *[r"\text{at least }17", r"17\text{ or less}", r"16\frac{1}{2}", "17_{8}"],
            *[r"17\frac{1}{2}", r"17.5\approx 17.9"],
        ],
    ),
    r"\frac{5}{18}": (
        [
            *[r"\frac{5}{18}.", r"\frac{10}{36}", r"\displaystyle\frac{5}{18}"],
            *[r"\cfrac{5}{18}", r"5\div18", r"P(A\cap B)=\frac{5}{18}"],
            *[r"P(\text{red})=\frac5{18}", r"\frac{5}{18}", r"0.27\overline{7}", r"\text{5/18}"],
            *[r"\mathbf{\frac{5}{18}}", r"\frac{5}{18}\text{ hours}", r"+\frac{5}{18}"],
            *[r"\frac 5 {18}", r"\frac{-5}{-18}", r"\dfrac{5}{18}\approx0.28"],
            *[r"0.277777\ldots", r".2\overline7", r"\left(\dfrac{5}{18}\right)"],
            *[r"\bf\frac{5}{18}", r"\frac{5}{18}\,"],
        ],
        [
            *[r"\frac{51}{8}", r"1-\frac{13}{18}", r"\frac{5}{18}x", "0.28", r"27.8\%"],
            *[r"\frac{5}{18}\text{ or }\frac{1}{4}", "5,18", r"\frac{18}{5}"],
            *[r"0.2\overline{8}", r"\binom{5}{18}", r"5\cdot 18", r"\frac{5}{-18}"],
            *[r"\sqrt{\frac{5}{18}}"],
        ],
    ),
    r"6\sqrt{5}": (
        [
            *[r"6\sqrt{5}\text{ units}", r"6\cdot \sqrt{5}", r"6 \times \sqrt{5}"],
            *[r"\sqrt{180}", r"6\sqrt 5", r"6{\sqrt{5}}", r"6\,\sqrt{5}", r"BC=6\sqrt5"],
            *[r"6\sqrt{5} \approx 13.416", r"\frac{6\cdot 5}{\sqrt{5}}", "6(5)^{1/2}"],
            *[r"6\cdot5^{0.5}", r"|z|=6\sqrt5", r"6\sqrt{5} \mathrm{~cm}", r"6\sqrt{(5)}"],
        ],
        [
            *[r"6\sqrt[3]{5}", r"6+\sqrt5", r"6\sqrt{5}\text{ or }5\sqrt6", r"-6\sqrt{5}"],
            *[r"6\sqrt5 i", r"\frac{6}{\sqrt5}", r"6\sqrt{5}\approx 14.42", r"6\sqrt{50}", "65"],
            *["6.5"],
        ],
    ),
    r"15\pi": (
        [
            *[r"15 \pi \text{ units}^2", r"15\pi~\text{cm}^2", r"\pi\cdot 15", r"15\,\pi"],
            *[r"A=15\pi \approx 47.12", r"15\pi\approx47.1\text{ cm}^2", r"15\cdot \pi"],
            *[r"15\boldsymbol{\pi}", r"\mathbf{15\pi}", "47.1238898"],
            *[r"15\pi\text{ square feet}", r"15 \pi \mathrm{~m}^{2}", r"15*\pi", r"(15\pi)"],
            *["15π"],
        ],
        [
            *["15", r"15+\pi", r"5\pi", r"15\pi\text{ or }16\pi", r"15\pi i", r"\pi^{15}"],
            *[r"15\pi x", "47"],
        ],
    ),
    "8-3i": (
        [
            *["8 - 3i", r"8-3\,i", "8+-3i", "-3i+8", "8.0-3.0i", "8-i3", r"8 - 3\mathrm{i}"],
            *["w = 8-3i", r"8-3\text{i}", r"8-3 \cdot i", "(8)-(3)i"],
        ],
        [
            *["8-3", "3-8i", "8i-3", "8-3x", "11", "8-3i, 8+3i", "8-3i^2", r"\sqrt{73}"],
        ],
    ),
    "(5,-3)": (
        [
            *["(5, -3)", r"\left( 5 , -3 \right)", "x=5,y=-3", r"x = 5 , \quad y = -3"],
            *["(x, y) = (5, -3)", "(h,k)=(5,-3)", "V=(5,-3)", "V(5,-3)", r"\text{(5,-3)}"],
            *[r"(5,\ -3)", r"\big(5,-3\big)", "(5.0,-3.0)", "(5,-3).", r"\displaystyle (5,-3)"],
            *[r"x=5;\ y=-3", r"\begin{cases}x=5\\y=-3\end{cases}"],
            *[r"\left(5,\,-\frac{6}{2}\right)", "(5，-3)", r"x=5 \text{ and } y=-3"],
            *[r"x=5\text{, }y=-3"],
        ],
        [
            *["5-3", "(5,3)", "(-3,5)", "5", "-3", "(5;-3;1)", "x=5,y=3", "y=5,x=-3"],
            *[r"\langle 5,-3,0\rangle", "(5,-3),(5,3)", "(5)(-3)", "{5,-3}", "x=5", "|(5,-3)|"],
        ],
    ),
    "[-3,8]": (
        [
            *[r"-3\le x\le8", r"-3 \leq x \leq 8", r"8\ge x\ge-3", r"\left[-3,8\right]"],
            *[r"x\in\left[-3,8\right]", r"\{x:-3\le x\le8\}"],
            *[r"\{x\in\mathbb{R}\mid -3\le x\le 8\}", r"\lbrack -3,8\rbrack", "[-3, 8]."],
            *["[-3.0,8]", r"-3\leqslant x\leqslant8", "-3 ≤ x ≤ 8"],
        ],
        [
            *["-3<x<8", r"-3\le x<8", "(-3,8]", "[-3,8)", "-3,8", r"x\le8", r"x\ge-3"],
            *[r"\{-3,8\}", "[-3,9]", "11", r"(-\infty,8]", r"[-3,8]\cup[9,10]"],
        ],
    ),
    r"(-\infty,-1)\cup(5,\infty)": (
        [
            *[r"x<-1\text{ or }x>5", "x<-1 or x>5", "x < -1, x > 5", r"x>5\text{ or }x<-1"],
            *[r"(-\infty, -1) \cup (5, +\infty)", "(-∞,-1)∪(5,∞)"],
            *[r"\left(-\infty,-1\right) \bigcup \left(5,\infty\right)"],
            *[r"x \in (-\infty,-1) \cup (5,\infty)", r"x<-1 \vee x>5"],
        ],
        [
            *["-1<x<5", r"x<-1\text{ and }x>5", r"(-\infty,-1]\cup[5,\infty)"],
            *[r"(-\infty,-1)\cup(6,\infty)", r"(5,\infty)", r"\mathbb{R}", "[-1,5]"],
        ],
    ),
    "4, -9": (
        [
            *[r"4,\ -9", r"4\text{ or }-9", "x=4,-9", r"x = 4 \text{ or } -9", "-9,4"],
            *[r"\{-9, 4\}", r"x_1=4,\ x_2=-9", r"4 \,\text{and}\, -9", r"\text{4 or -9}"],
            *[r"4,\;-9", r"x\in\{4,-9\}", "a=4,b=-9", r"x=-9 \text{ or } x=4"],
            *[r"4\ \text{and}\ -9"],
        ],
        [
            *["4", "-9", "4,9", "-4,9", "(4,-9)", "[4,-9]", "4,-9,1", r"4\text{ or }9", "13"],
            *["-36", "4-9", r"4\pm9"],
        ],
    ),
    r"\begin{pmatrix} 0 & 2 \\ -5 & 1 \end{pmatrix}": (
        [
            *[r"\begin{bmatrix}0&2\\-5&1\end{bmatrix}"],
            *[r"\left[\begin{array}{rr}0&2\\-5&1\end{array}\right]"],
            *[r"\begin{pmatrix}0&2\\[1ex]-5&1\end{pmatrix}"],
            *[r"A=\begin{pmatrix}0&2\\-5&1\end{pmatrix}"],
            *[r"\mathbf{M} = \begin{pmatrix} 0 & 2 \\ -5 & 1 \end{pmatrix}"],
            *[r"\begin{pmatrix}0.0&\frac{4}{2}\\-5&1\end{pmatrix}"],
            *[r"\left(\begin{smallmatrix}0&2\\-5&1\end{smallmatrix}\right)"],
            *[r"\begin{psmallmatrix}0&2\\-5&1\end{psmallmatrix}"],
            *[r"A^{-1}=\begin{pmatrix}0&2\\-5&1\end{pmatrix}"],
            *[r"\mathbf{A}^{-1}=\begin{pmatrix}0&2\\-5&1\end{pmatrix}"],
            *[r"\begin{array}{cc}0&2\\-5&1\end{array}"],
            *[r"\begin{pmatrix}0 & 2\\ -5 & 1\\ \end{pmatrix}."],
        ],
        [
            *[r"\begin{pmatrix}0&-5\\2&1\end{pmatrix}", r"\begin{pmatrix}0&2&-5&1\end{pmatrix}"],
            *["10", r"\begin{vmatrix}0&2\\-5&1\end{vmatrix}"],
            *[r"\det\begin{pmatrix}0&2\\-5&1\end{pmatrix}"],
            *[r"\begin{pmatrix}0&2\\-5&1\end{pmatrix}^2"],
            *[r"2\begin{pmatrix}0&2\\-5&1\end{pmatrix}", "0,2,-5,1"],
            *[r"\begin{pmatrix}0&2\\5&1\end{pmatrix}"],
        ],
    ),
    "324_7": (
        [
            *["324_7", "324_{7}", r"324_{\text{seven}}", "(324)_{7}", r"324_{\,7}"],
            *[r"\text{324}_7", r"324\text{ (base 7)}", r"324_{\mathrm{seven}}", "324~_7"],
            *["n=324_7"],
        ],
        [
            *["324_6", "3247", "324", "165", "234_7", "324_{10}", "324^7"],
        ],
    ),
    "y = 3x - 4": (
        [
            *["y=3x-4", "y=-4+3x", "3x-y=4", "-3x+y=-4", "y-3x=-4", "3x - y - 4=0"],
            *["y=3(x-1)-1", "y+4=3x", "y = 3x + (-4)", "6x-2y-8=0", r"y=3\cdot x-4", "0=3x-y-4"],
            *["y=3x-4.", "y - 2 = 3(x-2)", "y=3.0x-4"],
        ],
        [
            *["y=3x+4", "y=4x-3", "x=3y-4", "y=3x", "y>3x-4", "y=3x-4x", "y=-3x+4", "y^2=3x-4"],
            *["3x+y=4", "y=2x-4"],
        ],
    ),
    r"\text{odd}": (
        [
            *["odd", "Odd", r"\text{odd}", r"\mathrm{odd}", r"\textbf{odd}", r"\text{ odd}"],
            *[r"\text{odd.}", "odd.", "ODD", r"\textit{odd}", '"odd"'],
        ],
        [
            *["even", "odds", r"\text{odd or even}", r"\text{not odd}", "o", "1"],
            *[r"\text{neither odd nor even}", r"\text{oddeven}"],
        ],
    ),
    r"\text{(D)}": (
        [
            *["D", "(D)", r"\text{D}", r"\text{(D)}", r"\textbf{D}", r"\mathrm{D}"],
            *[r"\text{D)}", "D.", r"(\mathrm{D})", r"\textbf{(D)}\ \frac{1}{2}"],
            *[r"\text{(D)}\;12", r"\text{D. }12", r"\text{(D) }12\text{ cm}"],
            *[r"\textbf{(D) }12", r"\boxed{D}", r"\text{(d)}", r"\mathbf{D}", "D: 12"],
            *[r"\text{D: twelve}", r"(D)\ 12"],
        ],
        [
            *["E", "(E)", r"\text{(D), (E)}", "A D", "12", "DD", r"\text{(C)}\ 12"],
            *[r"\text{D or E}", r"\text{none}", "(C)(D)", r"\text{(E) } D"],
        ],
    ),
    r"\$21,\!600": (
        [
            *[r"\$21,600", r"\$21600.00", r"21{,}600\text{ dollars}", r"\$21,\!600"],
            *[r"\$\,21,600", "21,600", r"\text{\$}21,600", r"\text{\$21,600}", r"\$21\,600"],
            *[r"x=\$21,600", r"\$ 21600", r"21.6\text{ thousand dollars}"],
        ],
        [
            *[r"\$2,160", r"\$216,000", r"\$21,600\text{ or }\$21,000", r"\$21,600.50"],
            *[r"21600\text{ cents}", "216"],
        ],
    ),
    r"35\%": (
        [
            *[r"35\%", "35", r"35 \%", r"35\text{ percent}", r"35\text{\%}", r"35\,\%"],
            *[r"x=35\%", r"35.0\%"],
        ],
        [
            *[r"65\%", r"3.5\%", "350", r"35\%, 40\%", r"35^\circ"],
        ],
    ),
    "3x^2-5x+2": (
        [
            *["3x^2 - 5x + 2", "3 x^{2}-5 x+2", "2-5x+3x^2", "f(x)=3x^2-5x+2", "P(x)=3x^2-5x+2"],
            *["y=3x^2-5x+2", "3x^2+(-5x)+2", "3x^{2}-5x^{1}+2", r"3\,x^2-5\,x+2"],
            *[r"3\times x^2-5\times x+2", "3*x^2-5*x+2", "x(3x-5)+2", "3x^2-5x+2."],
        ],
        [
            *["(3x-2)(x-1)", "3x^2-5x-2", "3x^3-5x+2", "3t^2-5t+2", r"x^2-\frac53x+\frac23"],
            *["0", "3x^2-5x+2=1", "x=1", "3x^2-5"],
        ],
    ),
}
