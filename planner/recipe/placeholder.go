package recipe

import (
	"regexp"
	"slices"
	"strings"
)

// placeholderREs find the words that a reader is meant to replace. Each group
// is the whole placeholder.
var placeholderREs = []*regexp.Regexp{
	regexp.MustCompile(`(<[A-Za-z][^<>]*>)`),
	regexp.MustCompile(`(?i)((?:^|=|['"])/?(?:\.{0,2}/)?path[/_\-]to(?:[/_\-][\w./\-{}$]*)?)`),
	regexp.MustCompile(`((?:^|[=/'"])(?:YOUR|MY|your|my|Your)[_\-][\w./\-]+)`),
	regexp.MustCompile(`(?i)\b((?:TODO|FIXME|XXX+|changeme|placeholder|replace_me|PATH_TO_\w+|DIR_TO_\w+|path_of_\w+))\b`),
	regexp.MustCompile(`(\{[A-Z][A-Z0-9_ ]*\})`),
	regexp.MustCompile(`(\[[\w.\-]+(?:\s*[/|]\s*[\w.\-]+)+\])`),
	regexp.MustCompile(`(\{[\w.\-]+(?:\s*[/|]\s*[\w.\-]+)+\})`),
	regexp.MustCompile(`^(\.\.\.|…|\[\.\.\.\]|=\.\.\.)$`),
	regexp.MustCompile(`=(\.\.\.|…)$`),
	regexp.MustCompile(`^(\[[A-Z][A-Z0-9_ \-]+\])$`),
	regexp.MustCompile(`(\{[A-Za-z][^{}"']*\s[^{}"']*\})`),
	regexp.MustCompile(`(?:^|=)(\[[A-Za-z][^\[\]"'$]*\s[^\[\]"'$]*\])`),
	regexp.MustCompile(`^((?:[A-Z0-9]+_)*(?:PATH|DIR|FOLDER|FILE|CKPT|CHECKPOINT|ROOT|HOME)(?:_[A-Z0-9]+)*|[A-Z]+_(?:DATASET|MODEL|NAME|CONFIG|OUTPUT|INPUT))$`),
}

// capsRE is the last of the patterns, for the value of an option.
var capsRE = placeholderREs[len(placeholderREs)-1]

// A letter stands for a number behind an option that takes one.
var (
	letterRE = regexp.MustCompile(`^[NKMXY]$`)
	countRE  = regexp.MustCompile(`(?i)^--?(?:n|k|np|j|\w*(?:num|nproc|gpus?|size|seed|epochs?|steps?|batch|count|workers|shots?|nodes?|gpu[_\-]?id)\w*)$`)
)

// single are words that stand for a value only as a whole value.
var singleRE = regexp.MustCompile(`^(?:n_gpus|NUM_GPUS|DATASET|MODEL|MODEL_NAME|CHECKPOINT|CKPT|CKPT_PATH|DATA_PATH|DATA_DIR|OUTPUT_DIR|SEED|GPU_ID|EXP_NAME|TASK|TASK_NAME)$`)

// placeholders lists what is unbound in an argument vector, without repeats.
// Shell variables are not among them: the shell parser knows which of those a
// shell would expand.
func placeholders(argv []string, env map[string]string) []string {
	var out []string
	add := func(s string) {
		if s = strings.Trim(s, `='"`); s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	check := func(a string) {
		if strings.HasPrefix(a, "http://") || strings.HasPrefix(a, "https://") {
			return
		}
		for _, re := range placeholderREs {
			for _, m := range re.FindAllStringSubmatch(a, -1) {
				add(m[1])
			}
		}
		v := a
		if i := strings.IndexByte(a, '='); i >= 0 && strings.HasPrefix(a, "-") {
			v = a[i+1:]
		}
		if singleRE.MatchString(v) || v != a && capsRE.MatchString(v) {
			add(v)
		}
	}
	for i, a := range argv {
		if i == 0 {
			continue
		}
		check(a)
		name, v, eq := strings.Cut(a, "=")
		if !eq {
			name, v = argv[i-1], a
		}
		if letterRE.MatchString(v) && countRE.MatchString(name) {
			add(v)
		}
	}
	for _, v := range env {
		check(v)
	}
	return drop(out)
}

// drop removes placeholders that are part of another, and repeats.
func drop(in []string) []string {
	var out []string
	for _, a := range in {
		part := slices.Contains(out, a)
		for _, b := range in {
			part = part || a != b && strings.Contains(b, a)
		}
		if !part {
			out = append(out, a)
		}
	}
	return out
}

// spacedRE finds placeholders of several words, which a shell would split.
var spacedRE = regexp.MustCompile(`(^|[\s=,\[:])(\{[A-Za-z][^{}"'\n$;]*\s[^{}"'\n$;]*\}|\[[A-Za-z][^\[\]{}"'\n$;]*\s[^\[\]{}"'\n$;]*\])`)

// optionalRE finds an option in brackets, which the reader may leave out.
var optionalRE = regexp.MustCompile(`\s\[\s*--?[A-Za-z][^\[\]\n]*\]`)

// textPlaceholders finds placeholders in a script's text, whose variables the
// script may set itself.
func textPlaceholders(text string) []string {
	var words []string
	for _, w := range strings.Fields(text) {
		if !strings.Contains(w, "$") {
			words = append(words, strings.Trim(w, `"';`))
		}
	}
	return placeholders(append([]string{""}, words...), nil)
}
