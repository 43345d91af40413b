package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Markdown writes the report as one page of GitHub-flavoured Markdown that is
// safe to publish: no text of a stranger's becomes markup.
func (r *Report) Markdown(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, n := range r.Notices {
		fmt.Fprintf(b, "> **Notice:** %s\n\n", markdown(n))
	}
	title, id := r.subject()
	fmt.Fprintf(b, "# %s\n\n", markdown(truncate(clean(title), 240)))
	fmt.Fprintf(b, "**Verdict: %s.** %s.", markdown(words(r.Verdict)), markdown(r.Tally()))
	if r.Reason != "" {
		fmt.Fprintf(b, " %s", markdown(truncate(clean(r.Reason), maxReason)))
	}
	fmt.Fprintf(b, "\n\n- Target: %s\n- Code: %s\n- Run: %s\n", markdown(id), markdown(r.Source.line()), code(r.RunID))
	r.mdSuites(b)
	r.mdClaims(b)
	r.mdRuns(b)
	r.mdCosts(b)
	r.mdRemarks(b)
	r.mdTail(b)
	return b.Flush()
}

func (r *Report) mdClaims(b *bufio.Writer) {
	if len(r.Claims) == 0 {
		return
	}
	fmt.Fprint(b, "\n## Claims\n\n| Verdict | Metric | Reported | Measured | Tolerance |\n|---|---|---|---|---|\n")
	shown, rest := cut(r.ordered(), maxClaims)
	for i := range shown {
		c := &shown[i]
		name := c.name()
		fmt.Fprintf(b, "| **%s** | %s | %s | %s | %s |\n", markdown(words(c.Verdict)), markdown(name),
			markdown(join(" ", c.reported(), c.versus(), paren(c.Stated.place()))),
			markdown(join(" ", c.measured(), paren(c.Measured.notes()))), markdown(c.tolerance()))
	}
	if rest != "" {
		fmt.Fprintf(b, "\n%s\n", markdown(rest))
	}
	fmt.Fprintln(b)
	for i := range shown {
		c := &shown[i]
		name := c.name()
		if c.Reason != "" {
			fmt.Fprintf(b, "- %s: %s\n", markdown(name), markdown(truncate(clean(c.Reason), maxReason)))
		}
		if c.Read.File != "" {
			fmt.Fprintf(b, "- %s was read from %s %s\n", markdown(name), code(c.Read.place()), code(truncate(clean(c.Read.Quote), maxQuote)))
		}
	}
}

func (r *Report) mdRuns(b *bufio.Writer) {
	if len(r.Runs) == 0 {
		return
	}
	fmt.Fprint(b, "\n## Executed\n\n")
	shown, rest := cut(r.Runs, maxRuns)
	for i := range shown {
		run := &shown[i]
		fmt.Fprintf(b, "- %s", code(truncate(clean(run.Command), maxReason)))
		if run.Cwd != "" && run.Cwd != "." {
			fmt.Fprintf(b, " in %s", code(run.Cwd))
		}
		if run.Seeds != "" {
			fmt.Fprintf(b, ", %s", markdown(truncate(clean(run.Seeds), maxReason)))
		}
		fmt.Fprintf(b, ": %s", markdown(join("; ", run.how(), truncate(clean(run.Reason), maxReason))))
		if iso := run.isolation(); iso != "" {
			fmt.Fprintf(b, ". Sandbox: %s", markdown(truncate(clean(iso), maxReason)))
		}
		fmt.Fprintln(b)
	}
	if rest != "" {
		fmt.Fprintf(b, "- %s\n", markdown(rest))
	}
}

func (r *Report) mdCosts(b *bufio.Writer) {
	lines := r.Cost.lines()
	if len(lines) == 0 {
		return
	}
	fmt.Fprint(b, "\n## Cost\n\n")
	if r.Cost.SKU != "" {
		fmt.Fprintf(b, "On %s", markdown(r.Cost.SKU))
		if r.Cost.GPUs > 1 {
			fmt.Fprintf(b, " × %d", r.Cost.GPUs)
		}
		fmt.Fprint(b, ".\n\n")
	}
	fmt.Fprint(b, "| | Measured | Estimated |\n|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(b, "| %s | %s | %s |\n", l[0], markdown(l[1]), markdown(l[2]))
	}
}

func (r *Report) mdRemarks(b *bufio.Writer) {
	list := func(title string, items []string, rest string) {
		if len(items) == 0 {
			return
		}
		fmt.Fprintf(b, "\n## %s\n\n", title)
		for _, s := range items {
			fmt.Fprintf(b, "- %s\n", markdown(truncate(clean(s), maxReason)))
		}
		if rest != "" {
			fmt.Fprintf(b, "- %s\n", markdown(rest))
		}
	}
	deviations, rest := cut(r.Deviations, maxDeviations)
	var items []string
	for i := range deviations {
		items = append(items, deviations[i].line())
	}
	list("Deviations from what the authors declare", items, rest)
	warnings, rest := cut(r.Warnings, maxWarnings)
	items = nil
	for _, w := range warnings {
		items = append(items, w.Message)
	}
	list("Warnings", items, rest)
}

func (r *Report) mdTail(b *bufio.Writer) {
	if r.Results.Root != "" {
		fmt.Fprintf(b, "\n## Results\n\nParquet below %s", code(r.Results.Root))
		if len(r.Results.Tables) > 0 {
			fmt.Fprintf(b, ": %s", markdown(r.Results.tableCounts()))
		}
		fmt.Fprint(b, ".\n")
	}
	for _, h := range r.Look {
		fmt.Fprintf(b, "\n%s:\n\n%s", markdown(h.Shows), block(h.Command))
	}
	if r.Rerun != "" {
		fmt.Fprintf(b, "\nRun again:\n\n%s", block(r.Rerun))
	}
}

// block is a fenced code block of one line, whatever the line holds.
func block(s string) string {
	s = clean(s)
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	return fence + "sh\n" + s + "\n" + fence + "\n"
}
