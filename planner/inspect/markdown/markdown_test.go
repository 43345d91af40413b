package markdown

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const page = "# Title\n" + // 1
	"\n" +
	"Some `python inline.py --x 1` prose\nover two lines.\n" + // 3-4
	"\n" +
	"```````sh\n" + // 6
	"python a.py \\\n  --b 1 \\\n\n" + // 7-9
	"```\nnot the end\n" + // 10-11
	"```````\n" + // 12
	"## Sub\n" + // 13
	"    $ python indented.py\n    output 0.5\n" + // 14-15
	"\n" +
	"1. item\n\n   ~~~\n   (env)[dir]$ python item.py\n   ~~~\n" + // 17-21
	"> ```\n> python quoted.py\n> ```\n" + // 22-24
	"<pre/>python html.py &amp;&amp; ls</pre>\n" + // 25
	"Underlined\n==========\n" + // 26-27
	"| a | b |\n|---|:-:|\n| **1** | [x](http://y) |\n" + // 28-30
	"\n" +
	"<table><tr><th>m</th><th>AP</th></tr>\n<tr><td>r50</td>\n<td><b>42.0</b></td></tr></table>\n" + // 32-34
	"\n" +
	"```python\npip install x\nimport os\n!python magic.py\n>>> 1 + 1\n```\n" + // 36-41
	"```\nunclosed.sh\npython last.py" // 42-44

func TestScan(t *testing.T) {
	d := Scan(page)
	cmds, outs := d.Shell(nil)
	var got []string
	for _, c := range cmds {
		got = append(got, fmt.Sprintf("%d-%d %s", c.Line, c.End, c.Text))
	}
	want := []string{
		"7-8 python a.py --b 1", "11-11 not the end", "14-14 python indented.py", "20-20 python item.py", "23-23 python quoted.py", "25-25 python html.py && ls",
		"39-39 python magic.py", "43-43 unclosed.sh", "44-44 python last.py", "3-3 python inline.py --x 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	found := false
	for _, o := range outs {
		found = found || o.Text == "output 0.5" && o.Line == 15
	}
	if !found {
		t.Errorf("outputs %+v", outs)
	}
	var heads []string
	for _, h := range d.Headings {
		heads = append(heads, fmt.Sprintf("%d %d %s", h.Level, h.Line, h.Text))
	}
	if diff := cmp.Diff([]string{"1 1 Title", "2 13 Sub", "1 26 Underlined"}, heads); diff != "" {
		t.Error(diff)
	}
	if _, path := d.Section(20); strings.Join(path, "/") != "Title/Sub" {
		t.Errorf("section %v", path)
	}
	if len(d.Tables) != 2 || d.Tables[0].Rows[0].Line != 30 || d.Tables[0].Rows[0].Cells[1] != "x" || d.Tables[1].Rows[0].Cells[1] != "42.0" || d.Tables[1].Rows[0].Line != 33 {
		t.Errorf("tables %+v", d.Tables)
	}
	if p := d.Paras[0]; p.LineAt(0) != 3 || p.LineAt(len(p.Text)-1) != 4 {
		t.Errorf("lines of %+v", p)
	}
}

func TestPrompts(t *testing.T) {
	for text, want := range map[string]string{
		"$ python x.py":                         "python x.py",
		"(base) $ python x.py":                  "python x.py",
		"(robodiff)[diffusion]$ python x.py":    "python x.py",
		"user@host:~/dir$ python x.py":          "python x.py",
		"[user@host dir]$ python x.py":          "python x.py",
		"$python x.py":                          "python x.py",
		"! python x.py":                         "python x.py",
		"(env) > python x.py":                   "python x.py",
		">>> import x":                          "",
		"# just a comment":                      "",
		"epoch 1: loss 0.5":                     "",
		"A=1 B='x y' python x.py":               "A=1 B='x y' python x.py",
		"CUDA_VISIBLE_DEVICES=0 torchrun x.py":  "CUDA_VISIBLE_DEVICES=0 torchrun x.py",
		"for x in range(3):":                    "",
		"./run.sh":                              "./run.sh",
		"uv run python x.py":                    "uv run python x.py",
		"python - <<'E'\nprint(1)\nE":           "python - <<'E'\nprint(1)\nE",
		"for i in 1 2; do\n python $i\ndone":    "for i in 1 2; do\n python $i\ndone",
		"python x.py --text 'two\nlines'":       "python x.py --text 'two\nlines'",
		"python x.py --a \\\n # note\n --b":     "python x.py --a",
		"python x.py --it's fine":               "python x.py --it's fine",
		"python x.py \\ \n  --trailing-space 1": "python x.py --trailing-space 1",
	} {
		b := Block{Kind: Fenced, Line: 1, Text: strings.Split(text, "\n")}
		cmds, _ := b.shell(0, nil)
		got := ""
		if len(cmds) > 0 {
			got = cmds[0].Text
		}
		if got != want && !(strings.Contains(text, "# note") && strings.HasPrefix(got, want)) {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
}

func TestReStructuredText(t *testing.T) {
	d := Scan("Title\n=====\n\n.. code-block:: console\n\n   $ python rst.py\n\nText.\n")
	cmds, _ := d.Shell(nil)
	if len(cmds) != 1 || cmds[0].Text != "python rst.py" || cmds[0].Line != 6 {
		t.Errorf("commands %+v", cmds)
	}
}

func FuzzScan(f *testing.F) {
	f.Add(page)
	for _, s := range []string{"```", "~~~\n~~~~", "<pre>", "<table><tr><td>", "|a|\n|-|\n|", "`` ` ``", "    x\n\n\ty", "> > ```\nx", "- \n\n      y", "a\n---\n", "for\nfunction f () {\n", "x <<E\n", "\\", "$ \\\n\\\n", ".. code::"} {
		f.Add(s)
	}
	if b, err := os.ReadFile("markdown.go"); err == nil {
		f.Add(string(b[:2000]))
	}
	f.Fuzz(func(t *testing.T, src string) {
		d := Scan(src)
		lines := strings.Count(src, "\n") + 1
		cmds, outs := d.Shell(nil)
		for _, c := range cmds {
			if c.Line < 1 || c.End < c.Line || c.End > lines || c.Block >= len(d.Blocks) {
				t.Fatalf("command %+v in %d lines", c, lines)
			}
		}
		for _, o := range outs {
			if o.Line < 1 || o.Line > lines {
				t.Fatalf("output %+v in %d lines", o, lines)
			}
		}
		for i := range d.Paras {
			if n := d.Paras[i].LineAt(len(d.Paras[i].Text)); n < 1 || n > lines {
				t.Fatalf("paragraph ends at %d of %d", n, lines)
			}
		}
		for _, tb := range d.Tables {
			for _, r := range tb.Rows {
				if r.Line < 1 || r.Line > lines {
					t.Fatalf("row %+v in %d lines", r, lines)
				}
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	src := strings.Repeat(page+"\n```\n", 100)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		Scan(src).Shell(nil)
	}
}
