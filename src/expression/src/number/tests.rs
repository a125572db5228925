use super::*;

fn dec(text: &str) -> Dec<'static> {
    Dec::parse(text).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn arithmetic_keeps_digits_and_scale() {
    let cases: [(&str, fn(&Dec<'static>, &Dec<'static>) -> Result<Dec<'static>, ArithmeticError>, &str, &str); 22] = [
        ("1.10", Dec::multiply, "2", "2.20"),
        ("12345678901234567.89", Dec::add, "0.11", "12345678901234568.00"),
        ("1", Dec::subtract, "0.9", "0.1"),
        ("1.3", Dec::add, "-1.3", "0.0"),
        ("5", Dec::divide, "2", "2.5"),
        ("4", Dec::divide, "2", "2"),
        ("4.0", Dec::divide, "2", "2.0"),
        ("1", Dec::divide, "3", "0.3333333333333333333333333333333333"),
        ("2", Dec::divide, "3", "0.6666666666666666666666666666666667"),
        ("-2", Dec::divide, "3", "-0.6666666666666666666666666666666667"),
        ("2.40", Dec::divide, "2", "1.20"),
        ("1000", Dec::divide, "100", "10"),
        ("1000", Dec::divide, "1e2", "10.00"),
        ("10", Dec::remainder, "3", "1"),
        ("-10", Dec::remainder, "3", "-1"),
        ("10.2", Dec::remainder, "1", "0.2"),
        ("99999999999999999999999999999999999999", Dec::add, "1", "100000000000000000000000000000000000000"),
        ("99999999999999999999", Dec::multiply, "99999999999999999999", "9999999999999999999800000000000000000001"),
        ("1e3", Dec::multiply, "1", "1e+3"),
        ("0.0000001", Dec::add, "0", "1e-7"),
        ("-0.5", Dec::multiply, "-0.5", "0.25"),
        ("1e-6000", Dec::multiply, "1", "1e-6000"),
    ];
    for (left, operation, right, expected) in cases {
        let result = operation(&dec(left), &dec(right)).map(|result| result.text().to_string());
        assert_eq!(result.as_deref(), Ok(expected), "{left} {right}");
    }
}

#[test]
fn results_out_of_range_are_errors() {
    assert_eq!(dec("1").divide(&dec("0.00")).err(), Some(ArithmeticError::DivisionByZero));
    assert_eq!(dec("1e6000").multiply(&dec("1e6000")).err(), Some(ArithmeticError::Overflow));
    assert_eq!(dec("1e6000").add(&dec("1")).err(), Some(ArithmeticError::Overflow));
    assert!(Dec::parse("1e99999999999").is_none());
}

#[test]
fn rounding_is_half_to_even() {
    for (text, places, expected) in [
        ("2.345", 2, "2.34"),
        ("2.355", 2, "2.36"),
        ("-2.5", 0, "-2"),
        ("3.5", 0, "4"),
        ("1.2", 5, "1.2"),
        ("0.004", 2, "0.00"),
        ("1250", -2, "1.2e+3"),
    ] {
        assert_eq!(&*dec(text).round(places).expect(text).text(), expected, "{text}");
    }
}

#[test]
fn comparison_and_truncation_are_exact() {
    assert_eq!(dec("1.0").compare(&dec("1.00")), Ordering::Equal);
    assert_eq!(dec("1e30").compare(&dec("1e-30")), Ordering::Greater);
    assert_eq!(dec("-1e5000").compare(&dec("1e-30")), Ordering::Less);
    assert_eq!(dec("-7.9").truncated(), Some(-7));
    assert_eq!(dec("1e3").truncated(), Some(1000));
    assert_eq!(dec("1e-3000").truncated(), Some(0));
    assert!(dec("5.00").is_integer() && !dec("5.01").is_integer());
    assert_eq!(Dec::from_double(0.1).map(|number| number.text().to_string()).as_deref(), Some("0.1"));
    assert_eq!(Dec::from_double(1e23).map(|number| number.to_double()), Some(1e23));
}
