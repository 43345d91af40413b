package inspect

import "strings"

// stdlib are the top-level modules of Python's standard library, 2.7 to 3.14
// (docs.python.org, "Python Module Index"), without those only tests use.
var stdlib = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(`__future__ __main__ _thread abc aifc annotationlib argparse array ast asynchat asyncio asyncore atexit
		audioop base64 bdb binascii binhex bisect builtins bz2 cPickle cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop collections
		colorsys compileall compression concurrent configparser ConfigParser contextlib contextvars copy copyreg crypt csv ctypes curses dataclasses
		datetime dbm decimal difflib dis distutils doctest email encodings ensurepip enum errno faulthandler fcntl filecmp fileinput
		fnmatch formatter fractions ftplib functools gc getopt getpass gettext glob graphlib grp gzip hashlib heapq hmac html http
		httplib idlelib imaplib imghdr imp importlib inspect io ipaddress itertools json keyword lib2to3 linecache locale logging lzma mailbox
		mailcap marshal math mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis nntplib ntpath numbers opcode operator
		optparse os ossaudiodev parser pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath pprint
		profile pstats pty pwd py_compile pyclbr pydoc queue Queue quopri random re readline reprlib resource rlcompleter runpy sched
		secrets select selectors shelve shlex shutil signal site smtpd smtplib sndhdr socket socketserver spwd sqlite3 sre_constants ssl
		stat statistics string StringIO stringprep struct subprocess sunau symbol symtable sys sysconfig syslog tabnanny tarfile telnetlib
		tempfile termios test textwrap this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty
		turtle types typing unicodedata unittest urllib urllib2 urlparse uu uuid venv warnings wave weakref webbrowser winreg winsound
		wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo`) {
		m[n] = true
	}
	return m
}()

// Stdlib says whether a module belongs to Python's standard library.
func Stdlib(dotted string) bool {
	top, _, _ := strings.Cut(dotted, ".")
	return stdlib[top]
}

// distributions maps import names to distributions where the two differ.
var distributions = map[string]string{
	"cv2": "opencv-python", "PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml", "hydra": "hydra-core",
	"Crypto": "pycryptodome", "bs4": "beautifulsoup4", "dateutil": "python-dateutil", "dotenv": "python-dotenv", "git": "gitpython",
	"google.protobuf": "protobuf", "absl": "absl-py", "attr": "attrs", "faiss": "faiss-cpu", "fitz": "pymupdf", "flax": "flax", "haiku": "dm-haiku",
	"igraph": "python-igraph", "jose": "python-jose", "Levenshtein": "levenshtein", "ml_collections": "ml-collections", "mpl_toolkits": "matplotlib",
	"OpenGL": "pyopengl", "openai": "openai", "osgeo": "gdal", "pkg_resources": "setuptools", "pytorch_lightning": "pytorch-lightning",
	"rouge_score": "rouge-score", "sentence_transformers": "sentence-transformers", "serial": "pyserial", "slugify": "python-slugify",
	"tensorflow_datasets": "tensorflow-datasets", "tensorflow_probability": "tensorflow-probability", "torch_geometric": "torch-geometric",
	"torch_scatter": "torch-scatter", "torch_sparse": "torch-sparse", "umap": "umap-learn", "wx": "wxpython", "zmq": "pyzmq", "lightning": "lightning",
	"tensorboard_logger": "tensorboard-logger", "hydra_zen": "hydra-zen", "tqdm_loggable": "tqdm-loggable", "pycocotools": "pycocotools", "mujoco_py": "mujoco-py",
}

// Distribution is the name under which the package index has an import. It is
// the import's own name where nothing else is known.
func Distribution(dotted string) string {
	if d, ok := distributions[dotted]; ok {
		return d
	}
	top, _, _ := strings.Cut(dotted, ".")
	if d, ok := distributions[top]; ok {
		return d
	}
	return NormalName(top)
}
