package shell

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in       string
		argv     [][]string
		ops      []string
		compound string
		plain    bool
	}{
		{"python train.py --lr 3e-4", [][]string{{"python", "train.py", "--lr", "3e-4"}}, []string{""}, "", true},
		{"cd a/b && python x.py  # go", [][]string{{"cd", "a/b"}, {"python", "x.py"}}, []string{"", "&&"}, "", true},
		{`A=1 B="two words" ./run.sh 'x y'`, [][]string{{"./run.sh", "x y"}}, []string{""}, "", true},
		{`python x.py --p "$HOME/data"`, [][]string{{"python", "x.py", "--p", "$HOME/data"}}, []string{""}, "", false},
		{"python x.py --d $(date +%s)", [][]string{{"python", "x.py", "--d", "$(date +%s)"}}, []string{""}, "", false},
		{"python x.py data/*.csv", [][]string{{"python", "x.py", "data/*.csv"}}, []string{""}, "", false},
		{"python x.py ids=[1,2] pkg[dev]", [][]string{{"python", "x.py", "ids=[1,2]", "pkg[dev]"}}, []string{""}, "", true},
		{"python a.py | tee log.txt", [][]string{{"python", "a.py"}, {"tee", "log.txt"}}, []string{"", "|"}, "", true},
		{"python a.py > out.txt 2>&1", [][]string{{"python", "a.py"}}, []string{""}, "", true},
		{"python a.py &> out.txt", [][]string{{"python", "a.py"}}, []string{""}, "", true},
		{"a; b\nc", [][]string{{"a"}, {"b"}, {"c"}}, []string{"", ";", ";"}, "", true},
		{"for i in 1 2; do echo $i; done", nil, nil, "for", false},
		{"(cd x; y)", [][]string{{"cd", "x"}, {"y"}}, []string{"", ";"}, "subshell", true},
		{"python - <<'EOF'\nprint(1)\nEOF", nil, nil, "here document", false},
		{`python x.py --a=\"q\" it\'s`, [][]string{{"python", "x.py", `--a="q"`, "it's"}}, []string{""}, "", true},
		{"python x.py \\\n  --b 2", [][]string{{"python", "x.py", "--b", "2"}}, []string{""}, "", true},
		{"", nil, nil, "", true},
	}
	for _, tt := range tests {
		l, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if l.Compound != tt.compound {
			t.Errorf("Parse(%q).Compound = %q, want %q", tt.in, l.Compound, tt.compound)
		}
		if tt.compound != "" && tt.argv == nil {
			continue
		}
		var argv [][]string
		var ops []string
		plain := true
		for _, c := range l.Commands {
			argv = append(argv, c.Argv())
			ops = append(ops, c.Op)
			for _, w := range c.Words {
				plain = plain && w.Plain()
			}
		}
		if !reflect.DeepEqual(argv, tt.argv) || !reflect.DeepEqual(ops, tt.ops) || plain != tt.plain {
			t.Errorf("Parse(%q) = %q %q plain=%v", tt.in, argv, ops, plain)
		}
	}
}

func TestParseDetails(t *testing.T) {
	l, err := Parse(`CUDA_VISIBLE_DEVICES=0,1 X=$(pwd)/d torchrun ~/x.py {a,b} ${Y:-z} $1 &`)
	if err != nil {
		t.Fatal(err)
	}
	c := l.Commands[0]
	if len(c.Assign) != 2 || c.Assign[0].Name != "CUDA_VISIBLE_DEVICES" || c.Assign[0].Value.Text != "0,1" || c.Assign[1].Value.Substs[0] != "pwd" {
		t.Errorf("assignments %+v", c.Assign)
	}
	if !c.Words[1].Tilde || !c.Words[2].Brace || c.Words[3].Vars[0] != "Y" || c.Words[4].Vars[0] != "1" || !c.Background {
		t.Errorf("words %+v", c.Words)
	}
	if _, err := Parse("echo 'open"); err == nil {
		t.Error("an open quote gave no error")
	}
}

func TestQuoteRoundTrip(t *testing.T) {
	argv := []string{"a", "b c", "it's", "", "$x", "k=[1,2]", "*"}
	l, err := Parse(Quote(argv))
	if err != nil || !reflect.DeepEqual(l.Commands[0].Argv(), argv) {
		t.Fatalf("round trip of %q gave %q, %v", argv, l.Commands[0].Argv(), err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a b", "A=1 b 'c d' \"e $F\" $(g) `h` >i 2>&1 | j && k || l; m & n", "x \\", "${a", "((", "<<E\nE", "1>", "&>", "a>&b", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			return
		}
		for _, c := range l.Commands {
			again, err := Parse(Quote(c.Argv()))
			if err != nil {
				t.Fatalf("Quote(%q) does not parse: %v", c.Argv(), err)
			}
			var got []string
			for _, c := range again.Commands {
				for _, a := range c.Assign {
					got = append(got, a.Name+"="+a.Value.Text)
				}
				got = append(got, c.Argv()...)
			}
			if strings.Join(got, "\x00") != strings.Join(c.Argv(), "\x00") {
				t.Fatalf("%q became %q", c.Argv(), got)
			}
		}
	})
}
