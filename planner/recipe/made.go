package recipe

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
)

// outValues calls each for the values of a command that name where it writes.
func outValues(c *Command, each func(val string)) {
	for i, a := range c.Args {
		name, val, eq := strings.Cut(a, "=")
		if !eq && i+1 < len(c.Args) {
			val = c.Args[i+1]
		}
		if strings.HasPrefix(name, "-") && (outFlag(name) || outDirRE.MatchString(name)) && val != "" && !strings.HasPrefix(val, "-") {
			each(val)
		}
	}
}

// maker is the last command before c in its document that writes what c reads
// at p: the same path stands behind one of its options for output. nil when
// there is none, or the path is in the checkout.
func maker(f *inspect.Facts, c *Command, p string, cmds []*Command) *Command {
	if c.Doc < 0 || len(p) < 3 || path.IsAbs(p) || strings.ContainsAny(p, "<>${}*,") || strings.Contains(p, "://") || in(f, c, p) {
		return nil
	}
	var found *Command
	for _, o := range cmds {
		if o == c || o.Doc != c.Doc || o.Line >= c.Line || o.Role != RoleRun && o.Role != RoleSetup || o.Missing != "" || len(o.Unbound) > 0 {
			continue
		}
		outValues(o, func(val string) {
			made, read := path.Join(o.Cwd, val), path.Join(c.Cwd, p)
			if made == read || strings.HasPrefix(read, made+"/") && made != "." {
				found = o
			}
		})
	}
	return found
}

// fetched are calls that bring data, and names by which code says that it makes
// or fetches its data itself.
var fetchedRE = regexp.MustCompile(`(?i)download|load_dataset|urlretrieve|urlopen|requests\.get|fetch_|snapshot_|hf_hub|gdown|tfds\.|torchvision\.datasets|wget|synthe|simulat|make_dataset|(?:make|create|generate)_data|get_trajector|load_data_wiki|Planetoid|TUDataset|PygNodePropPred|PygGraphPropPred|openml`)

// folderFlagRE recognises options that say in which folder or file the data lies.
var folderFlagRE = regexp.MustCompile(`(?i)^--?(?:[a-z]+[_\-])*(?:data|dataset|root|corpus|input|wavs?|audios?|images?|imgs?|videos?|mels?|features?)[_\-]?(?:dir|path|root|folder|file|location|prefix)$|^--?data[_\-]?root$|^--?(?:train|eval|test|dev|val|valid|csv|metadata|manifest)[_\-](?:data[_\-])?(?:file|path|dir)$`)

// undelivered are folders and files that a program reads its data from, by an
// argument or by the default of its option, that are not in the checkout, and
// that neither a step before it nor the program itself brings.
func undelivered(f *inspect.Facts, c *Command, cmds []*Command) []string {
	core := c.core()
	m := f.Modules[core.Entry]
	if m == nil || c.Script != nil || delivered(c, cmds) {
		return nil
	}
	if s := f.Script(c.Entry); s != nil && fetchedRE.MatchString(s.Text) {
		return nil
	}
	var out []string
	for _, fl := range m.Flags {
		name, def := fl.Names[len(fl.Names)-1], strings.Trim(fl.Default, `'"`)
		if fl.By != "global" && folderFlagRE.MatchString(name) && theirDiskRE.MatchString(def) && !mentionsFlag(core.Args, fl.Names) && len(out) < 2 {
			out = append(out, fmt.Sprintf("%s, the default of %s (%s:%d), a folder of the authors' machine,", def, name, core.Entry, fl.Line))
		}
	}
	if len(out) > 0 || brings(f, core.Entry) {
		return out
	}
	absent := func(p string) bool {
		p = strings.Trim(p, `'"`)
		return len(p) > 3 && !path.IsAbs(p) && !strings.HasPrefix(p, "~") && !strings.Contains(p, "://") && !strings.ContainsAny(p, "<>${}*()[]% ") &&
			!in(f, c, p) && maker(f, c, p, cmds) == nil
	}
	given := map[string]bool{}
	arguments(core.Args, func(name, val string) {
		given[name] = true
		if folderFlagRE.MatchString(name) && absent(val) && !dataRE.MatchString(val) {
			out = append(out, val)
		}
	})
	for _, fl := range m.Flags {
		name := fl.Names[len(fl.Names)-1]
		if fl.By == "global" || anyGiven(fl.Names, given) || !folderFlagRE.MatchString(name) || outDirRE.MatchString(name) || len(out) > 2 {
			continue
		}
		if absent(fl.Default) && (strings.HasPrefix(fl.Default, "'") || strings.HasPrefix(fl.Default, `"`)) {
			out = append(out, fmt.Sprintf("%s, the default of %s (%s:%s)", strings.Trim(fl.Default, `'"`), name, core.Entry, strconv.Itoa(fl.Line)))
		}
	}
	if m.Hydra == nil {
		return out
	}
	for _, k := range settingsOfHydra(f, core, m) {
		last := k.Key[strings.LastIndexByte(k.Key, '.')+1:]
		if len(out) < 3 && folderFlagRE.MatchString("--"+last) && !outDirRE.MatchString("--"+last) && absent(k.Value) {
			out = append(out, fmt.Sprintf("%s, which %s:%d gives for %s", k.Value, k.File, k.Line, k.Key))
		}
	}
	return out
}

// theirDiskRE are absolute paths that only the authors have.
var theirDiskRE = regexp.MustCompile(`^/(?:[a-z]*data[a-z0-9]*|home|users|mnt|nfs|scratch|private|checkpoint|gpfs|lustre|media|work|path)[/\w.\-]*$`)

func mentionsFlag(args, names []string) bool {
	for _, a := range args {
		n, _, _ := strings.Cut(a, "=")
		for _, x := range names {
			if x == n {
				return true
			}
		}
	}
	return false
}

// brings says that a program fetches or makes data by itself.
func brings(f *inspect.Facts, entry string) bool {
	for _, p := range f.Reach(entry) {
		if m := f.Modules[p]; m != nil {
			for call := range m.Calls {
				if fetchedRE.MatchString(call) {
					return true
				}
			}
		}
	}
	return false
}

// delivered says that a step which stands before the command in its document
// downloads or prepares data for it.
func delivered(c *Command, cmds []*Command) bool {
	for _, o := range cmds {
		if c.Doc >= 0 && o.Doc == c.Doc && o.Line < c.Line && (o.Role == RoleDownload || o.Role == RoleSetup) && o.Missing == "" && (o.Block == c.Block || related(o, c)) {
			return true
		}
	}
	return false
}
