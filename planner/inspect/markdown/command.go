package markdown

import (
	"regexp"
	"strings"
)

// Command is one command line as it stands in a document, with continuation
// lines joined.
type Command struct {
	Text    string
	Line    int // first line
	End     int // last line
	Block   int // index into Doc.Blocks, or -1 for inline code
	Comment string
	Prompt  bool // the line carried a console prompt
	// Multi says that the text is a compound of several lines (a loop, a here
	// document) and keeps its line breaks.
	Multi bool
}

// Output is a line of a block that is no command: what a command prints.
type Output struct {
	Text  string
	Line  int
	Block int
}

var (
	// promptRE matches console prompts: "$ ", "(env) $ ", "(env)[dir]$ ",
	// "user@host:~/dir$ ", "[user@host dir]$ ", "% ", "!" of notebooks.
	promptRE = regexp.MustCompile(`^\s*(?:(?:\([\w.\-]+\)\s*)?(?:\[[^\]\n]*\]\s*|[\w.\-]+@[\w.\-]+[:\s][^$#\s]*\s*)?[$%]\s+|\([\w.\-]+\)\s*(?:\[[^\]\n]*\]\s*)?[$>#]\s*|[\w.\-]+@[\w.\-]+:[^$#\s]*[$#]\s+|\$(?:[a-zA-Z./])|!\s*(?:[a-zA-Z./]))`)
	// commandRE matches the programs that a line of research code starts with.
	commandRE = regexp.MustCompile(`^(?:(?:[A-Za-z_][A-Za-z0-9_]*=(?:'[^']*'|"[^"]*"|\S*)\s+)*)(?:(?:sudo|time|nohup|env|srun|poetry run|uv run|pdm run|pipenv run|pixi run|xvfb-run(?:\s+-\S+)*|conda run(?:\s+-\S+\s+\S+)*)\s+)*` +
		`(?:python[0-9.]*|pip[0-9]*|uv|uvx|poetry|pdm|pipenv|conda|mamba|micromamba|bash|sh|zsh|source|\.|cd|mkdir|wget|curl|git|unzip|tar|gunzip|make|cmake|export|sbatch|srun|salloc|torchrun|accelerate|deepspeed|horovodrun|mpirun|mpiexec|ray|jupyter|papermill|pytest|tox|nox|apt|apt-get|brew|docker|nvidia-docker|cog|huggingface-cli|hf|gsutil|aws|gdown|kaggle|streamlit|gradio|tensorboard|flask|uvicorn|gunicorn|wandb|Rscript|julia|matlab|ln|cp|mv|rm|for|while|if|module|lm_eval|vllm|just|snakemake|dvc|modal|xvfb-run|time|nohup|\./[\w./\-]+|[\w./\-]+\.(?:sh|py))(?:\s|$|;)`)
	// shownRE matches a paragraph that is nothing but what a program printed: a
	// dictionary, or one name and one number.
	shownRE = regexp.MustCompile(`^(?:\{[^{}]*\d[^{}]*\}|[A-Za-z][\w@/.\- ]{0,40}\s*[:=]\s*[-+]?\d+(?:\.\d+)?\s*%?)$`)
	// settingRE is a variable of the shell that is set for the commands to come.
	settingRE    = regexp.MustCompile(`^(?:export )?[A-Z_][A-Z0-9_]*=(?:"[^"]*"|'[^']*')$`)
	comparisonRE = regexp.MustCompile(`^(?:for|while|if)\b.*:\s*$`)
)

// LooksLikeCommand says whether a line begins like a shell command.
func LooksLikeCommand(l string) bool {
	return commandRE.MatchString(l) && !comparisonRE.MatchString(l)
}

// notShell are the languages whose blocks hold no commands unless a line has a
// prompt.
var notShell = map[string]bool{
	"json": true, "yaml": true, "yml": true, "toml": true, "bibtex": true, "bib": true, "latex": true, "tex": true, "diff": true,
	"c": true, "cpp": true, "cuda": true, "javascript": true, "js": true, "html": true, "xml": true, "r": true, "julia": true, "matlab": true,
	"output": true, "sql": true, "go": true, "rust": true, "java": true, "ini": true, "citation": true, "tree": true, "mermaid": true, "dockerfile": true,
}

// Shell splits the blocks of the document into commands and the output that is
// shown with them, in the block or in the paragraph right after it. What own
// says of a line, which may be nil, is that it starts a program of the project.
func (d *Doc) Shell(own func(line string) bool) ([]Command, []Output) {
	var cmds []Command
	var outs []Output
	para := 0
	for n := range d.Blocks {
		b := &d.Blocks[n]
		c, o := b.shell(n, own)
		cmds = append(cmds, c...)
		outs = append(outs, o...)
		if len(c) == 0 {
			continue
		}
		end := b.Line + len(b.Text)
		for para < len(d.Paras) && d.Paras[para].Line < end {
			para++
		}
		if para < len(d.Paras) && d.Paras[para].Line <= end+3 && d.Paras[para].Text == b.After && shownRE.MatchString(b.After) {
			outs = append(outs, Output{Text: b.After, Line: d.Paras[para].Line, Block: n})
		}
	}
	for _, sp := range d.Spans {
		if LooksLikeCommand(sp.Text) && strings.ContainsAny(sp.Text, " .") {
			cmds = append(cmds, Command{Text: sp.Text, Line: sp.Line, End: sp.Line, Block: -1})
		}
	}
	return cmds, outs
}

// Shell splits one shell script into commands.
func Shell(src string) []Command {
	b := Block{Kind: Fenced, Lang: "sh", Line: 1, Text: strings.Split(strings.ReplaceAll(src, "\r\n", "\n"), "\n")}
	c, _ := b.shell(0, nil)
	return c
}

func (b *Block) shell(n int, own func(string) bool) ([]Command, []Output) {
	var cmds []Command
	var outs []Output
	prompts := false
	if b.Lang != "sh" && b.Lang != "bash" || b.Kind != Fenced {
		for _, l := range b.Text {
			prompts = prompts || promptRE.MatchString(l)
		}
	} else {
		for _, l := range b.Text {
			prompts = prompts || strings.HasPrefix(strings.TrimSpace(l), "$ ")
		}
	}
	comment := ""
	shellLang := b.Lang == "sh" || b.Lang == "bash" || b.Lang == "shell" || b.Lang == "zsh"
	for i := 0; i < len(b.Text); {
		line := strings.TrimSpace(b.Text[i])
		p := promptRE.FindString(line)
		if strings.HasSuffix(p, "(") { // "!(" is no prompt
			p = ""
		}
		switch {
		case line == "":
			comment = ""
			i++
			continue
		case strings.HasPrefix(line, "#") && p == "":
			comment = strings.TrimSpace(comment + " " + strings.TrimLeft(line, "# "))
			i++
			continue
		}
		if p != "" {
			// the last pattern alternatives take one letter of the command
			if last := p[len(p)-1]; last != ' ' && last != '$' && last != '>' && last != '#' && last != '%' {
				p = p[:len(p)-1]
			}
			line = strings.TrimSpace(line[len(p):])
		}
		is := p != "" || !prompts && LooksLikeCommand(line) && !notShell[b.Lang] || !prompts && shellLang && shellish(line)
		is = is || !prompts && !notShell[b.Lang] && b.Lang != "python" && b.Lang != "py" && settingRE.MatchString(line)
		is = is || own != nil && !prompts && !notShell[b.Lang] && own(line)
		if is && b.Lang == "python" && p == "" && !pythonBlockCommand(line) {
			is = false
		}
		if !is {
			outs = append(outs, Output{Text: b.Text[i], Line: b.Line + i, Block: n})
			i++
			continue
		}
		text, next, multi := gather(b.Text, i, line)
		cmds = append(cmds, Command{Text: text, Line: b.Line + i, End: b.Line + next - 1, Block: n, Comment: comment, Prompt: p != "", Multi: multi})
		comment = ""
		i = next
	}
	return cmds, outs
}

// pythonBlockCommand tells a shell line that was put into a Python block from
// Python: "python x.py" and "pip install x" are no Python.
func pythonBlockCommand(l string) bool {
	w := strings.Fields(l)
	return len(w) > 1 && (strings.HasPrefix(w[0], "python") || w[0] == "pip" || w[0] == "bash" || w[0] == "torchrun" || w[0] == "git") && w[1] != "="
}

// shellish accepts lines of a block that says it is a shell block.
func shellish(l string) bool {
	c := l[0]
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '/' || c == '_' || c == '[' && strings.Contains(l, "]")
}

var (
	heredocRE = regexp.MustCompile(`<<-?\s*(['"]?)(\w+)['"]?`)
	openRE    = regexp.MustCompile(`^(for|while|until|if|case|function)\b|^\w+\s*\(\)\s*\{`)
	closeRE   = map[string]*regexp.Regexp{
		"for": regexp.MustCompile(`(^|[;\s])done\b`), "while": regexp.MustCompile(`(^|[;\s])done\b`), "until": regexp.MustCompile(`(^|[;\s])done\b`),
		"if": regexp.MustCompile(`(^|[;\s])fi\b`), "case": regexp.MustCompile(`(^|[;\s])esac\b`), "": regexp.MustCompile(`(^|[;\s])\}`),
	}
)

// maxGather bounds how many lines one command may take.
const maxGather = 200

// gather joins the lines that belong to the command starting at i. A dangling
// backslash at the end of the block is dropped.
func gather(lines []string, i int, first string) (text string, next int, multi bool) {
	next = i + 1
	text = first
	for strings.HasSuffix(text, "\\") && !strings.HasSuffix(text, "\\\\") {
		text = strings.TrimRight(strings.TrimSuffix(text, "\\"), " \t")
		if next >= len(lines) || next-i >= maxGather {
			break
		}
		// authors put comments between the lines of a command, where a shell
		// would end it
		after := next
		for after < len(lines) && after-i < maxGather && strings.HasPrefix(strings.TrimSpace(lines[after]), "#") {
			after++
		}
		if after >= len(lines) || after > next && LooksLikeCommand(strings.TrimSpace(lines[after])) {
			break
		}
		next = after
		more := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[next]), "> "))
		if more == "" {
			break
		}
		text += " " + more
		next++
	}
	if m := heredocRE.FindStringSubmatch(text); m != nil {
		for next < len(lines) && next-i < maxGather {
			text += "\n" + lines[next]
			next++
			if strings.TrimSpace(lines[next-1]) == m[2] {
				return text, next, true
			}
		}
		return text, next, true
	}
	if m := openRE.FindStringSubmatch(text); m != nil {
		end := closeRE[m[1]]
		if m[1] == "function" {
			end = closeRE[""]
		}
		depth := 1
		if end.MatchString(text) {
			depth = 0
		}
		for depth > 0 && next < len(lines) && next-i < maxGather {
			l := strings.TrimSpace(lines[next])
			text += "\n" + lines[next]
			next++
			if n := openRE.FindStringSubmatch(l); n != nil && n[1] == m[1] {
				depth++
			}
			if end.MatchString(l) {
				depth--
			}
		}
		return text, next, strings.Contains(text, "\n")
	}
	for openQuote(text) && next < len(lines) && next-i < 50 {
		text += "\n" + lines[next]
		next++
		multi = true
	}
	return text, next, multi
}

// openQuote says whether a quote is left open. An apostrophe inside a word is
// no quote.
func openQuote(t string) bool {
	var q byte
	for i := 0; i < len(t); i++ {
		c := t[i]
		switch {
		case c == '\\' && q != '\'':
			i++
		case q != 0:
			if c == q {
				q = 0
			}
		case c == '#' && (i == 0 || t[i-1] == ' '):
			return false
		case c == '"', c == '\'' && (i == 0 || strings.IndexByte(" =\t\n([{,;:$\"", t[i-1]) >= 0):
			q = c
		}
	}
	return q != 0
}
