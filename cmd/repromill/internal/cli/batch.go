package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
)

// maxBatch bounds the targets of one batch.
const maxBatch = 100_000

// batchItem is one target of a batch and what became of it.
type batchItem struct {
	Line   int    `json:"line"`
	Target string `json:"target"`
	Status string `json:"status"` // ok|failed|not_started, or a verdict
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
	RunID  string `json:"run_id,omitempty"`
	code   int
}

// readTargets reads one target a line from a file, or from standard input for
// "-". Empty lines and lines that start with # are passed over.
func (a *app) readTargets(from string) ([]batchItem, error) {
	r := a.stdin
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return nil, usererrf("give a file with one target a line, or - for standard input", "cannot read --from: %v", err)
		}
		defer f.Close()
		r = f
	}
	var items []batchItem
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		t := strings.TrimSpace(sc.Text())
		if t == "" || strings.HasPrefix(t, "#") {
			continue
		}
		if len(items) == maxBatch {
			return nil, usererrf("split the file", "--from holds more than %d targets", maxBatch)
		}
		items = append(items, batchItem{Line: line, Target: t, Status: "not_started"})
	}
	if err := sc.Err(); err != nil {
		return nil, usererrf("one target a line, none longer than 64 kB", "cannot read --from: %v", err)
	}
	if len(items) == 0 {
		return nil, usererrf("put one target on each line", "--from holds no target")
	}
	return items, nil
}

// batch works through the items, several at once; one that fails never stops
// the rest. An interrupt leaves the others not started.
func batch(ctx context.Context, items []batchItem, workers int, do func(context.Context, *batchItem)) {
	var wg sync.WaitGroup
	next := make(chan *batchItem)
	for range min(max(workers, 1), len(items)) {
		wg.Go(func() {
			for it := range next {
				do(ctx, it)
			}
		})
	}
	for i := range items {
		select {
		case next <- &items[i]:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
}

// batchTable prints what became of each target and returns the exit code:
// the worst of ours (1) and the user's (2) codes.
func batchTable(w io.Writer, items []batchItem) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "LINE\tTARGET\tSTATUS\tRUN\tDETAIL")
	for _, it := range items {
		run := it.RunID
		if run == "" {
			run = "-"
		}
		detail := it.Detail
		if it.Fix != "" && !strings.Contains(detail, it.Fix) {
			detail += " (" + it.Fix + ")"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\n", it.Line, clean(it.Target), it.Status, run, clean(oneLine(detail)))
	}
	tw.Flush()
}

func batchExit(ctx context.Context, items []batchItem) error {
	code := exitOK
	for _, it := range items {
		switch {
		case it.code == exitOurs:
			code = exitOurs
		case code != exitOurs:
			code = max(code, it.code)
		}
	}
	if ctx.Err() != nil {
		code = exitInterrupted
	}
	if code == exitOK {
		return nil
	}
	return &exitError{code}
}
