package python

import "strings"

// flag reads one option declaration of argparse, click or absl.
func (s *scanner) flag(t Token, name string, args []arg) {
	f := Flag{Line: t.Line, By: "argparse"}
	switch {
	case strings.HasPrefix(t.Text, "DEFINE_"):
		f.By = "absl"
		f.Type = strings.TrimPrefix(t.Text, "DEFINE_")
	case t.Text != "add_argument":
		if !strings.Contains(name, "click") && !strings.Contains(name, "typer") {
			return
		}
		f.By = "click"
	}
	pos := 0
	for _, a := range args {
		str, isStr := text1(a.value)
		switch {
		case a.key == "" && f.By == "absl":
			switch pos {
			case 0:
				if !isStr {
					return
				}
				f.Names = []string{"--" + str}
			case 1:
				f.Default = source(a.value)
			case 2:
				f.Help = str
			}
			pos++
		case a.key == "" && isStr && (strings.HasPrefix(str, "-") || len(f.Names) == 0):
			f.Names = append(f.Names, strings.Split(str, "/")[0])
		case a.key == "default":
			f.Default = source(a.value)
		case a.key == "type":
			f.Type = source(a.value)
		case a.key == "action":
			f.Action = str
		case a.key == "is_flag":
			f.Action = "store_true"
		case a.key == "help":
			f.Help = str
		case a.key == "required":
			f.Required = source(a.value) == "True"
		case a.key == "choices":
			for _, c := range a.value {
				if c.Kind == String {
					f.Choices = append(f.Choices, c.Text)
				}
			}
		}
	}
	if f.By == "absl" && strings.HasPrefix(f.Type, "config_file") && len(f.Names) == 0 {
		return
	}
	if len(f.Names) > 0 && len(s.m.Flags) < 1000 {
		s.m.Flags = append(s.m.Flags, f)
	}
}

// requireFlags marks the options that absl's mark_flag_as_required and
// mark_flags_as_required name.
func (s *scanner) requireFlags(args []arg) {
	for _, a := range args {
		for _, t := range a.value {
			if t.Kind != String {
				continue
			}
			known := false
			for i := range s.m.Flags {
				if f := &s.m.Flags[i]; len(f.Names) > 0 && f.Names[0] == "--"+t.Text {
					f.Required, known = true, true
				}
			}
			if !known && len(s.m.Flags) < 1000 {
				s.m.Flags = append(s.m.Flags, Flag{Names: []string{"--" + t.Text}, Required: true, Line: t.Line, By: "absl"})
			}
		}
	}
}

// assign reads "name = value", "name: type = value", "name['key'] = value" and
// "name.update({...})" as facts about names, dictionaries and flags.
func (s *scanner) assign(i int) {
	end := s.end(i)
	if i+2 >= end {
		return
	}
	name := s.toks[i].Text
	switch s.toks[i+1].Text {
	case "=":
		s.bind(name, i+2, end)
		if len(s.fn) == 0 && len(s.class) == 0 && len(s.guard) == 0 {
			s.m.Flags = appendGlobal(s.m.Flags, name, s.toks[i+2:end])
		}
	case ":":
		eq := -1
		for j := i + 2; j < end; j++ {
			if s.toks[j].Text == "=" && s.toks[j].Depth == s.toks[i].Depth {
				eq = j
				break
			}
		}
		if eq > 0 {
			s.bind(name, eq+1, end)
		}
		if n := len(s.class); n > 0 && s.class[n-1].data && len(s.fn) == 0 && len(s.m.Flags) < 1000 {
			f := Flag{Names: []string{"--" + name}, Line: s.toks[i].Line, By: "dataclass", Required: eq < 0}
			if eq > 0 {
				f.Type, f.Default = s.text(i+2, eq), s.text(eq+1, end)
			} else {
				f.Type = s.text(i+2, end)
			}
			s.m.Flags = append(s.m.Flags, f)
		}
	case "[":
		s.setKey(i, end)
	}
}

// appendGlobal records a module-level constant: some scripts let the command
// line override those by name.
func appendGlobal(flags []Flag, name string, value []Token) []Flag {
	if len(value) != 1 || value[0].Kind == Op || len(flags) >= 1000 || strings.HasPrefix(name, "_") {
		return flags
	}
	return append(flags, Flag{Names: []string{"--" + name}, Default: source(value), Line: value[0].Line, By: "global"})
}
