// Command evaluate evaluates CEL expressions with cel-go.
//
// For each JSON line {"expr": "…", "types": {name: "list(int)", …}, "vars": {name: value, …}} on standard input, it writes a line
// {"value": value}, or {"error": "…", "phase": "request", "check" or "evaluation"}. Values are tagged with their kinds, see untag.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
)

type request struct {
	Expr  string                     `json:"expr"`
	Types map[string]string          `json:"types"`
	Vars  map[string]json.RawMessage `json:"vars"`
}

type answer struct {
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
	Phase string `json:"phase,omitempty"`
}

type tagged = map[string]any

// readType parses a type such as map(string, list(int)) and returns the rest of the text.
func readType(text string) (*cel.Type, string, error) {
	end := strings.IndexAny(text, "(), ")
	if end < 0 {
		end = len(text)
	}
	name, rest := text[:end], text[end:]
	simple := map[string]*cel.Type{
		"int": cel.IntType, "uint": cel.UintType, "double": cel.DoubleType, "string": cel.StringType,
		"bytes": cel.BytesType, "bool": cel.BoolType, "null": cel.NullType, "dyn": cel.DynType,
		"timestamp": cel.TimestampType, "duration": cel.DurationType,
	}
	if found, ok := simple[name]; ok {
		return found, rest, nil
	}
	if name != "list" && name != "map" || !strings.HasPrefix(rest, "(") {
		return nil, "", fmt.Errorf("invalid type: %s", text)
	}
	first, rest, err := readType(rest[1:])
	if err != nil {
		return nil, "", err
	}
	if name == "list" {
		return cel.ListType(first), strings.TrimPrefix(rest, ")"), nil
	}
	second, rest, err := readType(strings.TrimLeft(rest, ", "))
	if err != nil {
		return nil, "", err
	}
	return cel.MapType(first, second), strings.TrimPrefix(rest, ")"), nil
}

// untag converts a tagged value: {"int": "5"}, {"list": […]}, {"map": [[key, value], …]}.
func untag(raw json.RawMessage) (ref.Val, error) {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, err
	}
	for kind, inner := range parts {
		var text string
		switch kind {
		case "null":
			return types.NullValue, nil
		case "bool":
			var truth bool
			err := json.Unmarshal(inner, &truth)
			return types.Bool(truth), err
		case "list":
			var items []json.RawMessage
			if err := json.Unmarshal(inner, &items); err != nil {
				return nil, err
			}
			values := make([]ref.Val, 0, len(items))
			for _, item := range items {
				value, err := untag(item)
				if err != nil {
					return nil, err
				}
				values = append(values, value)
			}
			return types.DefaultTypeAdapter.NativeToValue(values), nil
		case "map":
			var entries [][2]json.RawMessage
			if err := json.Unmarshal(inner, &entries); err != nil {
				return nil, err
			}
			made := make(map[ref.Val]ref.Val, len(entries))
			for _, entry := range entries {
				key, err := untag(entry[0])
				if err != nil {
					return nil, err
				}
				value, err := untag(entry[1])
				if err != nil {
					return nil, err
				}
				made[key] = value
			}
			return types.DefaultTypeAdapter.NativeToValue(made), nil
		}
		if err := json.Unmarshal(inner, &text); err != nil {
			return nil, err
		}
		switch kind {
		case "int":
			number, err := strconv.ParseInt(text, 10, 64)
			return types.Int(number), err
		case "uint":
			number, err := strconv.ParseUint(text, 10, 64)
			return types.Uint(number), err
		case "double":
			number, err := strconv.ParseFloat(text, 64)
			return types.Double(number), err
		case "string":
			return types.String(text), nil
		case "bytes":
			bytes, err := base64.StdEncoding.DecodeString(text)
			return types.Bytes(bytes), err
		case "timestamp":
			moment, err := time.Parse(time.RFC3339Nano, text)
			return types.Timestamp{Time: moment}, err
		case "duration":
			span, err := time.ParseDuration(text)
			return types.Duration{Duration: span}, err
		}
	}
	return nil, fmt.Errorf("invalid tagged value: %s", raw)
}

func spanText(span time.Duration) string {
	sign, nanos := "", uint64(span)
	if span < 0 {
		sign, nanos = "-", -nanos
	}
	return fmt.Sprintf("%s%d.%09ds", sign, nanos/1e9, nanos%1e9)
}

func tag(value ref.Val) (any, error) {
	switch value := value.(type) {
	case types.Null:
		return tagged{"null": nil}, nil
	case types.Bool:
		return tagged{"bool": bool(value)}, nil
	case types.Int:
		return tagged{"int": strconv.FormatInt(int64(value), 10)}, nil
	case types.Uint:
		return tagged{"uint": strconv.FormatUint(uint64(value), 10)}, nil
	case types.Double:
		return tagged{"double": strconv.FormatFloat(float64(value), 'g', -1, 64)}, nil
	case types.String:
		return tagged{"string": string(value)}, nil
	case types.Bytes:
		return tagged{"bytes": base64.StdEncoding.EncodeToString(value)}, nil
	case types.Timestamp:
		return tagged{"timestamp": value.Time.UTC().Format(time.RFC3339Nano)}, nil
	case types.Duration:
		return tagged{"duration": spanText(value.Duration)}, nil
	case *types.Optional:
		if !value.HasValue() {
			return tagged{"optional": nil}, nil
		}
		inner, err := tag(value.GetValue())
		return tagged{"optional": inner}, err
	case *types.Type:
		return tagged{"type": value.TypeName()}, nil
	case traits.Lister:
		items := []any{}
		for each := value.Iterator(); each.HasNext() == types.True; {
			item, err := tag(each.Next())
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		return tagged{"list": items}, nil
	case traits.Mapper:
		entries := [][2]any{}
		for each := value.Iterator(); each.HasNext() == types.True; {
			key := each.Next()
			name, err := tag(key)
			if err != nil {
				return nil, err
			}
			inner, err := tag(value.Get(key))
			if err != nil {
				return nil, err
			}
			entries = append(entries, [2]any{name, inner})
		}
		return tagged{"map": entries}, nil
	}
	return nil, fmt.Errorf("a value of %s", value.Type().TypeName())
}

type evaluator struct {
	base         *cel.Env
	environments map[string]*cel.Env
}

func newEvaluator() (*evaluator, error) {
	base, err := cel.NewEnv(
		ext.Strings(), ext.Math(), ext.Lists(), ext.Sets(), ext.Encoders(), ext.Bindings(),
		ext.TwoVarComprehensions(), cel.OptionalTypes(), cel.CrossTypeNumericComparisons(true),
	)
	return &evaluator{base, map[string]*cel.Env{}}, err
}

// environment returns the cached environment for variables of these types.
func (e *evaluator) environment(of map[string]string) (*cel.Env, error) {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	sort.Strings(names)
	key, options := "", []cel.EnvOption{}
	for _, name := range names {
		found, _, err := readType(of[name])
		if err != nil {
			return nil, err
		}
		key += name + " " + of[name] + "\n"
		options = append(options, cel.Variable(name, found))
	}
	if known, ok := e.environments[key]; ok {
		return known, nil
	}
	made, err := e.base.Extend(options...)
	if err == nil {
		e.environments[key] = made
	}
	return made, err
}

func (e *evaluator) evaluate(line []byte) (result answer) {
	phase := "request"
	// A panic is reported as an answer.
	defer func() {
		if panicked := recover(); panicked != nil {
			result = answer{Error: fmt.Sprint("panic: ", panicked), Phase: phase}
		}
	}()
	failed := func(err error) answer { return answer{Error: err.Error(), Phase: phase} }
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return failed(err)
	}
	environment, err := e.environment(req.Types)
	if err != nil {
		return failed(err)
	}
	variables := make(map[string]any, len(req.Vars))
	for name, raw := range req.Vars {
		if variables[name], err = untag(raw); err != nil {
			return failed(err)
		}
	}
	phase = "check"
	tree, issues := environment.Compile(req.Expr)
	if issues.Err() != nil {
		return failed(issues.Err())
	}
	program, err := environment.Program(tree)
	if err != nil {
		return failed(err)
	}
	phase = "evaluation"
	value, _, err := program.Eval(variables)
	if err != nil {
		return failed(err)
	}
	result.Value, err = tag(value)
	if err != nil {
		phase = "request"
		return failed(err)
	}
	return result
}

func run() error {
	evaluator, err := newEvaluator()
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return out.Flush()
		}
		if err := encoder.Encode(evaluator.evaluate(line)); err != nil {
			return err
		}
		if lines.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
