//! pushed
